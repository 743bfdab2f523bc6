"""Times, counts, hooks, probes and drains of a worker that serves an application of ASGI."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from srvd.wire import links
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client, Rig
from tests.worker.asgi.test_websocket import HANDSHAKE, echo

Scope = dict[str, Any]
WITHIN = 30.0
SOCKETS = 6
GET = b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n"


async def app(scope: Scope, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/block":
        time.sleep(3600)
    if path == "/hang":
        await asyncio.sleep(3600)
    if path == "/fail":
        raise ValueError("mine")
    await send({"type": "http.response.start", "status": 302 if path == "/moved" else 200, "headers": [(b"x-a", b"1")]})
    if path == "/stream":
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await asyncio.sleep(3600)
    await send({"type": "http.response.body", "body": b"hello"})


def test_a_request_that_takes_too_long_is_answered_with_504_alone(tmp_path: Path) -> None:
    cancelled = tmp_path / "cancelled"

    async def patient(scope: Scope, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            cancelled.touch()
            raise

    with Rig(patient, tmp_path, request_timeout=0.3) as rig:
        rig.serving()
        with rig.connect() as client, rig.connect() as other:
            client.send(GET % b"/hang")
            while not cancelled.exists():
                assert other.get().status == 200
            late = client.answer()
            assert (late.status, late.headers["connection"]) == (504, "close")
        assert "GET /hang: nothing came of the application for 0." in rig.log()
        assert "Traceback" not in rig.log()
        wait_for(lambda: rig.facts().busy == 0, WITHIN)
        assert rig.facts().by_class[5] == 1


def test_a_response_that_stands_still_is_cut(tmp_path: Path) -> None:
    with Rig(app, tmp_path, request_timeout=0.3) as rig:
        rig.serving()
        with rig.connect() as client:
            sent = client.send(GET % b"/stream").rest()
        assert sent.endswith(b"5\r\nfirst\r\n")
        assert "the response is cut" in rig.log()


def test_a_body_that_does_not_come_is_answered_with_408(tmp_path: Path) -> None:
    async def reading(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            continue
        await app(scope, receive, send)

    with Rig(reading, tmp_path, body_timeout=0.3) as rig:
        rig.serving()
        with rig.connect() as client:
            answer = client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\na").answer()
            assert answer.status == 408
            assert client.ended()


def test_a_client_that_does_not_read_is_reset(tmp_path: Path) -> None:
    async def pour(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})

    with Rig(pour, tmp_path, send_timeout=0.3) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(GET % b"/")
            rig.connections(1)
            rig.connections(0)
            with pytest.raises(ConnectionResetError):
                client.rest()
        assert rig.log() == ""


def test_probes_and_warm_paths_are_asked_of_the_application(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        assert rig.hear() == links.Ready()
        for path, healthy, text in (
            ("/", True, "GET /: 200 OK"),
            ("/fail", False, "ValueError: mine"),
            ("/moved", False, "GET /moved: 302 Found"),
        ):
            rig.say(links.Probe(path, 5.0))
            said = rig.hear()
            assert isinstance(said, links.Probed)
            assert said.healthy is healthy
            assert text in said.text
        rig.say(links.Warm(["/", "/fail"]))
        assert isinstance(rig.hear(), links.Warmed)
        assert "warming: GET /fail" in rig.log()


def test_hooks_get_the_scope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = tmp_path / "notes"

    def note(*what: object) -> None:
        with notes.open("a") as file:
            file.write(f"{what}\n")

    module = ModuleType("hooks_of_asgi")
    vars(module).update(
        before_request=lambda scope: note("before", scope["path"]),
        after_request=lambda scope, status, sent, seconds: note("after", scope["path"], status, sent),
        on_worker_start=lambda worker: note("start", worker),
        on_worker_stop=lambda worker: note("stop", worker),
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with Rig(app, tmp_path, hooks=module.__name__) as rig:
        rig.serving()
        rig.get("/a")
        rig.drain()
        assert rig.wait() == 0
    assert notes.read_text().splitlines() == [
        "('start', 'web/1#3')", "('before', '/a')", "('after', '/a', 200, 5)", "('stop', 'web/1#3')",
    ]  # fmt: skip


def test_the_access_log_has_the_lines_that_wsgi_has(tmp_path: Path) -> None:
    file = tmp_path / "access"
    with Rig(app, tmp_path, access_log=str(file), access_log_format="json") as rig:
        rig.serving()
        rig.get("/a%20b?x=1", "User-Agent: probe", "Referer: http://a/")
        with rig.connect() as client:
            client.send(b"GARBAGE\r\n\r\n")
            assert client.answer().status == 400
        rig.drain()
        assert rig.wait() == 0
    first, second = map(json.loads, file.read_text().splitlines())
    assert first["status"] == 200
    assert "127.0.0.1" in str(first)
    assert "/a%20b?x=1" in str(first)
    assert "probe" in str(first)
    assert second["status"] == 400


def test_max_requests_asks_for_a_replacement(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_requests=3) as rig:
        rig.serving()
        for _ in range(3):
            rig.get()
        assert isinstance(rig.hear(), links.Expired)


def test_idle_it_makes_no_system_call(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.get()
            before = switches(rig.pid)
            time.sleep(2)
            assert switches(rig.pid) - before <= 1


def switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("voluntary_ctxt_switches:")[2].split()[0])


# Drains


def test_an_event_stream_is_told_at_once_when_the_worker_leaves(tmp_path: Path) -> None:
    async def events(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await receive()
        fields = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"data: bye\n\n"})

    with Rig(events, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(GET % b"/").read_until(b"data: 1")
            rig.drain(60)
            client.read_until(b"data: bye\n\n\r\n0\r\n\r\n")
        assert rig.wait() == 0


def test_an_event_stream_is_cancelled_once_though_websockets_end_after_it(tmp_path: Path) -> None:
    cancelled, cleaned = tmp_path / "cancelled", tmp_path / "cleaned"
    ends: list[Any] = []

    async def last_words() -> None:
        while len(ends) < SOCKETS:
            await asyncio.sleep(0.01)
        cleaned.touch()

    async def mixed(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            ends.append(scope)
            return
        await receive()
        fields = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.touch()
            await last_words()
            raise

    with Rig(mixed, tmp_path, lifespan="off") as rig, ExitStack() as clients:
        rig.serving()
        for _ in range(SOCKETS):
            socket_client = clients.enter_context(rig.connect())
            socket_client.send(HANDSHAKE).read_until(b"\r\n\r\n")
        client = clients.enter_context(rig.connect())
        client.send(GET % b"/").read_until(b"data: 1")
        rig.drain(12)  # the sockets end over 3 seconds, the stream is cancelled after one
        wait_for(cancelled.exists, WITHIN)
        wait_for(cleaned.exists, WITHIN)
        clients.close()  # they do not answer the worker's close frames
        assert rig.wait() == 0
        assert rig.log() == ""


def test_what_does_not_end_in_a_drain_is_cancelled_and_may_clean_up(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"

    async def endless(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        try:
            await app(scope | {"path": "/hang"}, receive, send)
        finally:
            await asyncio.sleep(0.1)
            cleaned.touch()

    with Rig(endless, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(GET % b"/")
            wait_for(lambda: rig.facts().busy == 1, WITHIN)
            rig.drain(1.0)
            assert rig.wait() == 0
        assert cleaned.exists()


def test_the_scoreboard_shows_the_oldest_request(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as first, rig.connect() as second:
            first.send(GET % b"/hang?1")
            wait_for(lambda: rig.facts().busy == 1, WITHIN)
            began = rig.facts().began
            second.send(GET % b"/stream")
            second.read_until(b"first")
            for _ in range(3):
                assert rig.get().status == 200
            wait_for(lambda: rig.facts().requests == 3, WITHIN)
            facts = rig.facts()
            assert (facts.busy, facts.line, facts.began) == (1, "GET /hang", began)
            cut(first)
            wait_for(lambda: rig.facts().line == "GET /stream", WITHIN)
            assert rig.facts().busy == 1
            cut(second)
        wait_for(lambda: rig.facts().busy == 0, WITHIN)


def cut(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()
