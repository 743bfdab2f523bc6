"""What the settings of a pool change for an application of ASGI."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.support.worker_rig import Rig as AnyRig
from tests.worker.asgi.test_websocket import HANDSHAKE, echo, frame

Scope = dict[str, Any]
Rig = partial(AnyRig, lifespan="off")
WITHIN = 60.0
GET = b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n"


async def answer(send: Any, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.mark.parametrize("half", [True, False])
def test_the_task_of_a_client_that_has_left_is_cancelled(tmp_path: Path, half: bool) -> None:
    begun, cancelled = tmp_path / "begun", tmp_path / "cancelled"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        begun.touch()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.touch()
            raise

    with Rig(app, tmp_path, cancel_on_disconnect=True) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(GET % b"/")
            wait_for(begun.exists, WITHIN)
            if half:
                client.sock.shutdown(1)
                assert client.rest() == b""
        wait_for(cancelled.exists, WITHIN)
        rig.connections(0)
        assert rig.facts().by_class[5] == 0
        assert rig.log() == ""


@pytest.mark.slow
def test_the_task_of_a_client_that_has_left_is_cancelled_once(tmp_path: Path) -> None:
    begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        begun.touch()
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(4)  # longer than the patience with a client that has left
            cleaned.touch()

    with Rig(app, tmp_path, cancel_on_disconnect=True) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(GET % b"/")
            wait_for(begun.exists, WITHIN)
            client.sock.shutdown(1)
            assert client.rest() == b""
        wait_for(cleaned.exists, WITHIN)
        assert rig.log() == ""


@pytest.mark.slow
def test_work_behind_a_response_is_not_cancelled(tmp_path: Path) -> None:
    left, worked = tmp_path / "left", tmp_path / "worked"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await answer(send, b"early")
        while not left.exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(4)  # longer than the patience with a client that has left
        worked.touch()

    with Rig(app, tmp_path, cancel_on_disconnect=True) as rig:
        rig.serving()
        assert rig.get().body == b"early"
        left.touch()
        wait_for(worked.exists, WITHIN)
        assert rig.log() == ""


def test_more_requests_than_may_be_in_flight_are_answered_with_503(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await echo(scope, receive, send)
            return
        while scope["path"] == "/wait" and not go.exists():
            await asyncio.sleep(0.01)
        await answer(send, b"served")

    with Rig(app, tmp_path, max_in_flight=2) as rig:
        rig.serving()
        with rig.connect() as idle, rig.connect() as socket, rig.connect() as waiting:
            assert idle.get().body == b"served"  # and keeps its connection, which does not count
            socket.send(HANDSHAKE + frame(1, b"hello"))
            assert socket.read_until(b"hello").startswith(b"HTTP/1.1 101 ")
            waiting.send(GET % b"/wait")
            wait_for(lambda: rig.facts().busy == 1, WITHIN)
            refused = rig.get()
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            go.touch()
            assert waiting.answer().body == b"served"
            assert rig.get().body == b"served"
        assert rig.log() == ""


ORIGIN = b"Origin: %b\r\n\r\n"


@pytest.mark.parametrize(
    ("origin", "status"),
    [(b"https://shop.example", 101), (b"HTTPS://Shop.Example", 101), (b"https://evil.example", 403), (b"null", 403)],
)
def test_pages_of_other_origins_open_no_websocket(tmp_path: Path, origin: bytes, status: int) -> None:
    with Rig(echo, tmp_path, websocket_origins=("https://shop.example",)) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(HANDSHAKE[:-2] + ORIGIN % origin)
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
        with rig.connect() as client:  # not a browser
            client.send(HANDSHAKE)
            assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert rig.log() == ""


@pytest.mark.parametrize(
    ("setting", "path", "told"),
    [
        ("", "/a", ("", "/a")),
        ("/", "/a", ("", "/a")),
        ("/shop", "/a", ("/shop", "/shop/a")),
        ("shop/", "/", ("/shop", "/shop/")),
        ("/shop", "/shop/a", ("/shop", "/shop/a")),  # the proxy has left it there
        ("/shop", "/shop", ("/shop", "/shop")),
        ("/shop", "/shopping", ("/shop", "/shop/shopping")),
    ],
)
def test_the_root_path_is_in_the_scope_once(tmp_path: Path, setting: str, path: str, told: tuple[str, str]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await answer(send, repr((scope["root_path"], scope["path"], scope["raw_path"])).encode())

    with Rig(app, tmp_path, root_path=setting) as rig:
        rig.serving()
        assert rig.get(path).body.decode() == repr((*told, path.encode()))
