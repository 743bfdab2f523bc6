"""The worker as an application of ASGI sees it: HTTP, over real sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.support.worker_rig import Client
from tests.support.worker_rig import Rig as AnyRig

Scope = dict[str, Any]
App = Callable[[Scope, Any, Any], Any]
Rig = partial(AnyRig, lifespan="off")
PLAIN = [(b"content-type", b"text/plain")]
WITHIN = 30.0


def start(status: int = 200, *fields: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(fields)}


def part(body: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": PLAIN})
    await send({"type": "http.response.body", "body": f"hello {scope['path']}".encode()})


async def read(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        pieces.append(message["body"])
        if not message["more_body"]:
            return b"".join(pieces)


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    body = await read(receive)
    await send(start(200, (b"content-length", str(len(body)).encode())))
    await send(part(body))


def test_a_client_that_asked_for_the_end_and_still_sends_its_body_gets_the_answer(tmp_path: Path) -> None:
    with Rig(hello, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"POST /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 20000\r\n\r\n")
            assert client.sock.recv(1, socket.MSG_PEEK)  # it is answered
            assert rig.get().status == 200  # and the loop has gone on
            for _ in range(20):
                client.send(b"x" * 1_000)  # which no reset ends
            assert client.rest().endswith(b"hello /a")


def test_a_bare_application_answers(tmp_path: Path) -> None:
    with Rig(hello, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            first, second = client.get("/a"), client.get("/b")
        assert (first.status, first.body) == (200, b"hello /a")
        assert first.headers["content-length"] == "8"
        assert second.body == b"hello /b"
        rig.drain()
        assert rig.wait() == 0
        assert rig.log() == ""


def test_the_scope_is_what_asgi_says(tmp_path: Path) -> None:
    async def show(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        await send(part(repr(scope).encode()))

    with Rig(show, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            ours = client.sock.getsockname()
            answer = client.get("/a%20b/%C3%A9?x=%20y", "X-Thing: 1", "x-thing:  2 ", "X_Thing: evil")
        scope = eval(answer.body)
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/a b/é",
            "raw_path": b"/a%20b/%C3%A9",
            "query_string": b"x=%20y",
            "root_path": "",
            "headers": [(b"host", b"test"), (b"x-thing", b"1"), (b"x-thing", b"2")],
            "client": ours,
            "server": rig.address,
            "extensions": {
                "http.response.pathsend": {},
                "http.response.zerocopysend": {},
                "http.response.early_hint": {},
                "http.response.trailers": {},
            },
            "srvd.worker": "web/1#3",
        }


def test_a_target_in_absolute_form_is_a_path(tmp_path: Path) -> None:
    async def show(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        await send(part(repr((scope["path"], scope["raw_path"], dict(scope["headers"])[b"host"])).encode()))

    with Rig(show, tmp_path) as rig:
        rig.serving()
        assert rig.get("http://shop.test/a%20b?q").body == b"('/a b', b'/a%20b', b'shop.test')"


def test_over_a_unix_socket_there_is_no_client(tmp_path: Path) -> None:
    async def show(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        await send(part(repr((scope["client"], scope["server"])).encode()))

    with Rig(show, tmp_path, unix=True) as rig:
        rig.serving()
        assert rig.get().body == repr((None, (rig.address, None))).encode()


def test_what_one_application_changes_in_its_scope_reaches_no_other_request(tmp_path: Path) -> None:
    async def change(scope: Scope, receive: Any, send: Any) -> None:
        body = f"{len(scope['headers'])} {scope['asgi']}".encode()
        scope["headers"].append((b"more", b"1"))
        scope["asgi"]["version"] = "4"
        await send(start())
        await send(part(body))

    with Rig(change, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            assert len({client.get().body for _ in range(4)}) == 1


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_come_whole(tmp_path: Path, size: int, chunked: bool) -> None:
    body = os.urandom(size)
    with Rig(echo, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            for _ in range(2):
                if chunked:
                    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
                    client.send((b"%x\r\n%b\r\n" % (size, body) if size else b"") + b"0\r\n\r\n")
                else:
                    client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size + body)
                assert client.answer().body == body


def test_a_body_is_given_as_it_comes(tmp_path: Path) -> None:
    async def count(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        more = True
        while more:
            message = await receive()
            more = message["more_body"]
            await send(part(message["body"], more=more))

    with Rig(count, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nab")
            client.read_until(b"2\r\nab\r\n")
            client.send(b"cd")
            client.read_until(b"2\r\ncd\r\n")
            client.send(b"ef")
            client.read_until(b"2\r\nef\r\n0\r\n\r\n")


def test_a_body_that_nobody_reads_stays_with_the_client(tmp_path: Path) -> None:
    gate = tmp_path / "go"

    async def wait(scope: Scope, receive: Any, send: Any) -> None:
        while not gate.exists():
            await asyncio.sleep(0.01)
        await echo(scope, receive, send)

    size = 32 << 20
    with Rig(wait, tmp_path) as rig:
        rig.serving()
        before = rss(rig.pid)
        with rig.connect() as client:
            client.sock.settimeout(0.5)
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size)
            sent = 0
            with suppress(TimeoutError):
                while sent < size:
                    sent += client.sock.send(b"x" * 65_536)
            assert sent < 16 << 20
            assert rss(rig.pid) - before < 12 << 20
            gate.touch()
            client.sock.settimeout(WITHIN)
            client.send(b"x" * (size - sent))
            assert len(client.answer().body) == size


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_sleeping_reader_makes_the_application_wait(tmp_path: Path) -> None:
    given = tmp_path / "given"
    block = b"x" * 65_536

    async def pour(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        for number in range(256):
            await send(part(block, more=True))
            given.write_text(str(number))
        await send(part())

    with Rig(pour, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            last = -1

            def still() -> bool:
                nonlocal last
                before, last = last, int(given.read_text() or -1) if given.exists() else -1
                return before == last >= 0

            wait_for(still, WITHIN, 0.3)
            assert last < 200
            assert rig.get("/").status == 200  # others are served meanwhile
            assert len(client.answer().body) == 16 << 20


def test_100_continue_is_said_when_the_application_asks(tmp_path: Path) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"

    async def choose(scope: Scope, receive: Any, send: Any) -> None:
        await (echo if scope["path"] == "/read" else hello)(scope, receive, send)

    with Rig(choose, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(head % b"/read")
            assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert client.send(b"abc").answer().body == b"abc"
            answer = client.send(head % b"/refuse").answer()
            assert answer.body == b"hello /refuse"
            assert answer.headers["connection"] == "close"
            assert client.ended()


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05 if scope["path"] == "/0" else 0)
        await hello(scope, receive, send)

    with Rig(slow, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % number for number in range(40)))
            assert [client.answer().body for _ in range(40)] == [b"hello /%d" % number for number in range(40)]
            client.send(b"GET /0 HTTP/1.1\r\nHost: t\r\n\r\n")
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.send(b"GET /1 HTTP/1.1\r\nHost: t\r\n\r\n")
            assert [client.answer().body for _ in range(2)] == [b"hello /0", b"hello /1"]


def test_requests_run_side_by_side(tmp_path: Path) -> None:
    async def meet(scope: Scope, receive: Any, send: Any) -> None:
        global_meeting.append(1)
        while len(global_meeting) < 50:
            await asyncio.sleep(0.01)
        await hello(scope, receive, send)

    global_meeting: list[int] = []
    with Rig(meet, tmp_path) as rig:
        rig.serving()
        clients = [rig.connect().send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n") for _ in range(50)]
        assert [client.answer().status for client in clients] == [200] * 50
        wait_for(lambda: rig.facts().requests == 50 and rig.facts().busy == 0, WITHIN)
        for client in clients:
            client.sock.close()


# The end of the connection


def disconnected(tmp_path: Path, leave: Callable[[Client], object], *, sends: bool) -> str:
    """What the application is told when a client leaves in a certain way."""
    told = tmp_path / "told"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send(start())
        await send(part(b"first", more=True))
        try:
            if sends:
                while True:
                    await send(part(b"x" * 1000, more=True))
                    await asyncio.sleep(0.01)
            told.write_text((await receive())["type"])
        except OSError as exc:
            told.write_text(f"OSError {exc}")
            raise

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n").read_until(b"first")
            leave(client)
            wait_for(lambda: told.exists() and told.read_text() != "", WITHIN)
        rig.connections(0)
        wait_for(lambda: rig.facts().busy == 0, WITHIN)
        assert rig.log() == ""
    return told.read_text()


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


def close(client: Client) -> None:
    client.sock.close()


@pytest.mark.parametrize("leave", [reset, close])
def test_an_application_that_listens_is_told_of_a_client_that_leaves(
    tmp_path: Path, leave: Callable[[Client], object]
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        return None

    assert disconnected(tmp_path, leave, sends=False) == "http.disconnect"


@pytest.mark.parametrize("leave", [reset, close])
def test_send_raises_after_the_client_has_left_and_nothing_is_logged(
    tmp_path: Path, leave: Callable[[Client], object]
) -> None:
    assert disconnected(tmp_path, leave, sends=True) == "OSError the client is gone"


def test_a_client_that_ended_its_sending_is_answered(tmp_path: Path) -> None:
    async def slow(scope: Scope, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        await hello(scope, receive, send)

    with Rig(slow, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            client.sock.shutdown(socket.SHUT_WR)
            assert client.answer().body == b"hello /"
            assert client.ended()


def test_a_body_that_is_cut_off_never_looks_whole(tmp_path: Path) -> None:
    told = tmp_path / "told"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        messages: list[Any] = []
        while not messages or messages[-1]["type"] == "http.request":
            messages.append(await receive())
        told.write_text(repr(messages))

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc")
            client.sock.shutdown(socket.SHUT_WR)
            assert client.answer().status == 400
        wait_for(lambda: told.exists() and told.read_text() != "", WITHIN)
        messages = eval(told.read_text())
        assert messages[-1] == {"type": "http.disconnect"}
        assert all(message["more_body"] for message in messages[:-1])


def test_malformed_chunks_are_refused(tmp_path: Path) -> None:
    with Rig(echo, tmp_path) as rig:
        rig.serving()
        for later in (False, True):
            with rig.connect() as client:
                client.send(b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
                if later:
                    wait_for(lambda: rig.facts().busy == 1, WITHIN)
                client.send(b"zz\r\n")
                assert client.answer().status == 400
                assert client.ended()
        assert rig.get().status == 200


# What an application gives


def given(tmp_path: Path, *messages: Any, method: str = "GET", version: str = "1.1") -> tuple[bytes, str]:
    """All bytes on the wire, and the log, of an application that sends these messages."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(f"{method} / HTTP/{version}\r\nHost: t\r\nConnection: close\r\n\r\n".encode())
            sent = client.rest()
        rig.drain()
        assert rig.wait() == 0
        return sent, rig.log()


LENGTH = (b"content-length", b"5")


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ((part(b"x"),), "http.response.body came before http.response.start"),
        (({"type": "http.response.rubbish"},), "is no message of a response that srvd knows"),
        (({"status": 200},), "it has no type"),
        (("start",), "is no message"),
        ((start(99),), "99 is no status"),
        ((start(200, (b"a b", b"x")),), "is no header name"),
        ((start(200, (b"x", b"a\r\nb: c")),), "a header has CR, LF or NUL"),
        (({"type": "http.response.start", "status": 200, "headers": [("x", "y")]},), "headers are no list of (bytes"),
        ((start(200, (b"content-length", b"x")),), "is no length"),
        ((start(), {"type": "http.response.body", "body": "text"}), "the body is str, not bytes"),
        ((start(), start()), "http.response.start came twice"),
        ((start(200, LENGTH), part(b"123456")), "1 bytes longer than its Content-Length"),
        ((start(200, LENGTH), part(b"1234")), "1 bytes shorter than its Content-Length"),
        ((start(200, LENGTH), part(b"123456", more=True)), "1 bytes longer"),
        ((), "the application returned without a response"),
        ((start(),), "the application returned before the end"),
    ],
)
def test_a_wrong_message_puts_nothing_on_the_wire(tmp_path: Path, messages: tuple[Any, ...], why: str) -> None:
    sent, log = given(tmp_path, *messages)
    assert sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert sent.count(b"HTTP/1.1") == 1
    assert why in log


@pytest.mark.parametrize(
    ("messages", "end"),
    [
        ((start(200, LENGTH), part(b"123", more=True), part(b"456")), b"\r\n\r\n123"),
        ((start(200, LENGTH), part(b"123", more=True), part(b"4")), b"\r\n\r\n123"),
        ((start(200, LENGTH), part(b"123", more=True)), b"\r\n\r\n123"),
        ((start(), part(b"123", more=True)), b"\r\n\r\n3\r\n123\r\n"),
    ],
)
def test_a_response_that_breaks_off_does_not_look_whole(tmp_path: Path, messages: tuple[Any, ...], end: bytes) -> None:
    sent, log = given(tmp_path, *messages)
    assert sent.endswith(end)
    assert "GET /: the application" in log


def test_after_the_end_of_a_response_send_raises(tmp_path: Path) -> None:
    sent, log = given(tmp_path, start(), part(b"x"), part(b"y"))
    assert sent.endswith(b"\r\n\r\nx")
    assert "the application failed after its response" in log
    assert "http.response.body: the response has ended" in log


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(tmp_path: Path, status: int) -> None:
    sent, log = given(tmp_path, start(status), part(b"no", more=True), part(b"body"))
    assert sent.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in sent.lower()
    assert log == ""


def test_a_head_has_no_body_and_its_length(tmp_path: Path) -> None:
    sent, log = given(tmp_path, start(200, LENGTH), part(b"12345"), method="HEAD")
    assert sent.endswith(b"\r\n\r\n")
    assert b"content-length: 5\r\n" in sent.lower()
    assert log == ""


def test_http_1_0_gets_no_chunks(tmp_path: Path) -> None:
    sent, _ = given(tmp_path, start(), part(b"ab", more=True), part(b"cd"), version="1.0")
    assert sent.endswith(b"\r\n\r\nabcd")
    assert b"chunked" not in sent


def test_hop_by_hop_fields_are_dropped_with_one_warning(tmp_path: Path) -> None:
    sent, log = given(tmp_path, start(200, (b"transfer-encoding", b"chunked"), LENGTH), part(b"12345"))
    assert b"chunked" not in sent
    assert sent.endswith(b"12345")
    assert log.count("transfer-encoding was dropped") == 1


def test_a_head_is_sent_although_its_body_is_still_to_come(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def events(scope: Scope, receive: Any, send: Any) -> None:
        await send(start(200, (b"content-type", b"text/event-stream")))
        while not go.exists():
            await asyncio.sleep(0.01)
        await send(part(b"data: 1\n\n"))

    with Rig(events, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            assert b"text/event-stream" in client.read_until(b"\r\n\r\n")
            go.touch()
            client.read_until(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")


@pytest.mark.parametrize("what", ["raise ValueError('mine')", "raise SystemExit(3)", "raise asyncio.CancelledError"])
def test_what_an_application_raises_is_a_500_and_the_worker_lives(tmp_path: Path, what: str) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["path"] == "/fail":
            exec(what)
        await hello(scope, receive, send)

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            failed = client.get("/fail")
            assert (failed.status, failed.body) == (500, b"500 Internal Server Error\n")
            assert client.get("/").status == 200
        assert "GET /fail: the application failed\n    Traceback" in rig.log()
        assert rig.facts().by_class[5] == 1


def test_a_task_of_the_application_that_exits_ends_alone(tmp_path: Path) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        task = asyncio.get_running_loop().create_task(leave())
        await asyncio.wait([task])
        await hello(scope, receive, send)

    with Rig(app, tmp_path) as rig:
        rig.serving()
        assert rig.get().status == 200
        rig.drain()
        assert rig.wait() == 0


def test_work_behind_a_response_does_not_hold_up_the_next_request(tmp_path: Path) -> None:
    done = tmp_path / "done"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await hello(scope, receive, send)
        if scope["path"] == "/work":
            assert (await receive())["type"] in ("http.request", "http.disconnect")
            await asyncio.sleep(0.5)
            done.touch()

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.get("/work")
            assert client.get("/").status == 200
            assert not done.exists()
        rig.drain()
        assert rig.wait() == 0
        assert done.exists()


def test_what_applications_do_with_the_loop(tmp_path: Path) -> None:
    async def use(scope: Scope, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        process = await asyncio.create_subprocess_exec("echo", "1", stdout=asyncio.subprocess.PIPE)
        said = (await process.communicate())[0]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"2\n")
        said += await reader.read()
        writer.close()
        server.close()
        said += await asyncio.to_thread(lambda: b"3\n")
        left, right = socket.socketpair()
        left.setblocking(False)
        ready = loop.create_future()
        loop.add_reader(left, ready.set_result, None)
        right.send(b"4\n")
        await asyncio.wait_for(ready, WITHIN)
        loop.remove_reader(left)
        said += await loop.sock_recv(left, 10)
        left.close()
        right.close()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(asyncio.sleep(0.01, number)) for number in range(3)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(WITHIN)
        await send(start())
        await send(part(said + repr([task.result() for task in tasks]).encode()))

    with Rig(use, tmp_path) as rig:
        rig.serving()
        for _ in range(3):
            assert rig.get().body == b"1\n2\n3\n4\n[0, 1, 2]"
        assert rig.log() == ""
