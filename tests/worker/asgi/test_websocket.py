"""WebSockets as an application of ASGI sees them, with the client of `websockets` and with raw bytes."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import wait_for
from tests.support.worker_rig import Client
from tests.support.worker_rig import Rig as AnyRig

Scope = dict[str, Any]
Rig = partial(AnyRig, lifespan="off")
WITHIN = 30.0
HANDSHAKE = (
    b"GET /chat?room=1 HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
MASK = b"\1\2\3\4"


def frame(kind: int, payload: bytes) -> bytes:
    masked = bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))
    size = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    return bytes([0x80 | kind]) + size + MASK + masked


def client(rig: AnyRig, path: str = "/", **more: Any) -> ClientConnection:
    host, port = rig.address
    found: ClientConnection = connect(
        f"ws://{host}:{port}{path}", open_timeout=WITHIN, close_timeout=WITHIN, proxy=None, **more
    )
    return found


async def echo(scope: Scope, receive: Any, send: Any) -> None:
    assert (await receive()) == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def test_messages_go_both_ways(tmp_path: Path) -> None:
    with Rig(echo, tmp_path) as rig:
        rig.serving()
        for compression in (None, "deflate"):
            with client(rig, compression=compression) as ws:
                for message in ("text é", b"\0\xff", "", b"", "x" * 100_000, os.urandom(1_000_000)):
                    ws.send(message)
                    assert ws.recv(WITHIN) == message
                ws.ping().wait(WITHIN)
        rig.connections(0)
        assert rig.log() == ""
        rig.drain()
        assert rig.wait() == 0


def test_the_scope_says_what_was_asked_for(tmp_path: Path) -> None:
    async def show(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-a", b"1")]})
        told = {key: scope[key] for key in scope if key not in ("headers", "client", "server")}
        await send({"type": "websocket.send", "text": repr(told)})
        await send({"type": "websocket.close", "code": 3001, "reason": "done"})

    with Rig(show, tmp_path) as rig:
        rig.serving()
        with client(rig, "/a%20b?q=1", subprotocols=["news", "chat"]) as ws:
            assert ws.subprotocol == "chat"
            assert ws.response is not None
            assert ws.response.headers["x-a"] == "1"
            assert eval(ws.recv(WITHIN)) == {
                "type": "websocket",
                "asgi": {"version": "3.0", "spec_version": "2.5"},
                "http_version": "1.1",
                "scheme": "ws",
                "path": "/a b",
                "raw_path": b"/a%20b",
                "query_string": b"q=1",
                "root_path": "",
                "subprotocols": ["news", "chat"],
                "extensions": {"websocket.http.response": {}},
                "srvd.worker": "web/1#3",
            }
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            assert (ws.close_code, ws.close_reason) == (3001, "done")


def deny(*messages: dict[str, Any]) -> Callable[..., Any]:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        for message in messages:
            await send(message)

    return app


@pytest.mark.parametrize(
    ("app", "status", "body"),
    [
        (deny({"type": "websocket.close"}), 403, b"403 Forbidden\n"),
        (
            deny(
                {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-a", b"1")]},
                {"type": "websocket.http.response.body", "body": b"who", "more_body": True},
                {"type": "websocket.http.response.body", "body": b" are you"},
            ),
            401,
            b"who are you",
        ),
        (deny({"type": "websocket.send", "text": "early"}), 500, b"500 Internal Server Error\n"),
        (deny({"type": "websocket.accept", "subprotocol": "not offered"}), 500, b"500 Internal Server Error\n"),
        (deny(), 500, b"500 Internal Server Error\n"),
    ],
)
def test_a_handshake_may_be_refused(tmp_path: Path, app: Any, status: int, body: bytes) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        with pytest.raises(InvalidStatus) as refused, client(rig):
            pass
        assert refused.value.response.status_code == status
        assert refused.value.response.body == body


def test_a_bad_handshake_never_reaches_the_application(tmp_path: Path) -> None:
    with Rig(echo, tmp_path) as rig:
        rig.serving()
        for field, status in ((b"Version: 12", 426), (b"Key: short", 400)):
            name = field.partition(b":")[0]
            lines = [line for line in HANDSHAKE.split(b"\r\n") if name not in line]
            with rig.connect() as raw:
                head = b"\r\n".join([*lines[:1], b"Sec-WebSocket-" + field, *lines[1:]])
                assert raw.send(head).answer().status == status
        assert rig.log() == ""


def test_an_upgrade_that_is_no_handshake_is_a_request(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["type"].encode()})

    with Rig(app, tmp_path) as rig:
        rig.serving()
        assert rig.get("/", "Upgrade: h2c", "Connection: Upgrade").body == b"http"
        with rig.connect() as raw:
            raw.send(HANDSHAKE.replace(b"GET", b"POST"))
            assert raw.answer().body == b"http"


def accepted(rig: AnyRig, more: bytes = b"") -> Client:
    raw = rig.connect().send(HANDSHAKE + more)
    assert raw.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    return raw


def test_frames_in_the_segment_of_the_handshake_are_kept(tmp_path: Path) -> None:
    with Rig(echo, tmp_path) as rig:
        rig.serving()
        with accepted(rig, frame(1, b"early")) as raw:
            assert raw.read(7) == b"\x81\x05early"


def noting(path: Path) -> Callable[..., Any]:
    """Sends each message back, and notes how it ended."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        path.write_text(f"{message['code']} {message['reason']}")

    return app


def cut(raw: Client) -> None:
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.sock.close()


@pytest.mark.parametrize(
    ("leave", "told", "answered"),
    [
        (lambda raw: raw.send(frame(8, b"\x03\xe9bye")), "1001 bye", b"\x88\x05\x03\xe9bye"),
        (lambda raw: raw.send(frame(8, b"")), "1005 ", b"\x88\x00"),
        (lambda raw: raw.send(frame(1, b"last") + frame(8, b"\x03\xe8")), "1000 ", b"\x81\x04last\x88\x02\x03\xe8"),
        (lambda raw: raw.send(frame(1, b"\xff")), "1007 a text message is not UTF-8", b"\x88"),
        (lambda raw: raw.send(b"\x81\x05hello"), "1002 ", b"\x88"),
        (cut, "1006 ", b""),
        (lambda raw: raw.sock.close(), "1006 ", b""),
    ],
)
def test_how_a_client_leaves_is_told(
    tmp_path: Path, leave: Callable[[Client], object], told: str, answered: bytes
) -> None:
    note = tmp_path / "note"
    with Rig(noting(note), tmp_path) as rig:
        rig.serving()
        with accepted(rig) as raw:
            leave(raw)
            wait_for(lambda: note.exists() and note.read_text().startswith(told), WITHIN)
            if answered:
                assert raw.rest().startswith(answered)
        rig.connections(0)
        assert rig.log() == ""


def test_an_application_that_fails_closes_with_1011(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("mine")

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with client(rig) as ws:
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            assert ws.close_code == 1011
        assert "ValueError: mine" in rig.log()


def test_an_application_that_returns_closes_with_1000(tmp_path: Path) -> None:
    with Rig(deny({"type": "websocket.accept"}), tmp_path) as rig:
        rig.serving()
        with client(rig) as ws:
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            assert ws.close_code == 1000
        assert rig.log() == ""


def test_sending_after_the_client_has_left_is_an_os_error_and_not_logged(tmp_path: Path) -> None:
    note = tmp_path / "note"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0.01)
        except OSError as exc:
            note.write_text(str(exc))
            raise

    with Rig(app, tmp_path) as rig:
        rig.serving()
        cut(accepted(rig))
        wait_for(note.exists, WITHIN)
        rig.connections(0)
        assert rig.log() == ""


def test_messages_wait_with_the_client_while_the_application_takes_none(tmp_path: Path) -> None:
    go = tmp_path / "go"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not go.exists():
            await asyncio.sleep(0.01)
        count = 0
        while (await receive())["type"] == "websocket.receive":
            count += 1
            if count == 400:
                await send({"type": "websocket.send", "text": "all"})

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with client(rig, compression=None) as ws:
            ws.socket.settimeout(WITHIN)
            block = b"x" * 65_536

            def pour() -> None:
                for _ in range(400):
                    ws.send(block)

            sending = threading.Thread(target=pour)
            sending.start()
            sending.join(1.0)
            assert sending.is_alive()
            go.touch()
            assert ws.recv(WITHIN) == "all"
            sending.join(WITHIN)


def test_a_silent_client_is_pinged_and_cut(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with Rig(noting(note), tmp_path, websocket_ping=0.2, websocket_ping_timeout=0.3) as rig:
        rig.serving()
        with accepted(rig) as raw:
            assert raw.read(2) == b"\x89\x00"
            raw.send(frame(10, b""))
            assert raw.read(2) == b"\x89\x00"  # it has answered, so it is asked again
            wait_for(lambda: note.exists() and note.read_text() == "1006 ", WITHIN)
        rig.connections(0)


def test_a_message_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with Rig(echo, tmp_path, websocket_max_message=1000) as rig:
        rig.serving()
        with client(rig) as ws:
            ws.send("x" * 1001)
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            assert ws.close_code == 1009


def test_an_idle_websocket_is_not_late_and_a_drain_ends_it_with_1012(tmp_path: Path) -> None:
    note = tmp_path / "note"
    access = tmp_path / "access"
    with Rig(noting(note), tmp_path, request_timeout=0.2, access_log=str(access)) as rig:
        rig.serving()
        with client(rig, "/chat") as ws:
            ws.send("one")
            assert ws.recv(WITHIN) == "one"
            assert rig.facts().busy == 0
            with pytest.raises(TimeoutError):
                ws.recv(1.0)
            rig.drain(30)
            with pytest.raises(ConnectionClosed):
                ws.recv(WITHIN)
            assert ws.close_code == 1012
        assert rig.wait() == 0
        assert note.read_text().startswith("1012 ")
        assert '"GET /chat HTTP/1.1" 101 ' in access.read_text()
        assert rig.log() == ""


def test_messages_that_were_not_inflated_when_the_client_was_cut_are_no_fault(tmp_path: Path) -> None:
    go, told = tmp_path / "go", tmp_path / "told"

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while not go.exists():
            await asyncio.sleep(0.01)
        sizes = []
        while (message := await receive())["type"] == "websocket.receive":
            sizes.append(len(message["text"]))
        told.write_text(f"{sizes[0]} {message['code']}")

    deflate = zlib.compressobj(wbits=-12)
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n\r\n"
    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(HANDSHAKE[:-2] + offer)
            client.read_until(b"\r\n\r\n")
            data = frame(9, b"")
            for _ in range(5):
                payload = (deflate.compress(b"x" * 200_000) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
                data += frame(0x41, payload)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.send(data + frame(8, b"\x03\xe8"))
            assert client.read(2) == b"\x8a\0"  # the answer to the ping: all of it was read
        rig.connections(0)
        go.touch()
        wait_for(lambda: told.exists() and told.read_text() != "", WITHIN)
        assert told.read_text() == "200000 1006"
        assert rig.log() == ""


def test_a_websocket_counts_as_one_although_its_request_was_under_way_before(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await asyncio.sleep(0.1)  # one turn of the loop in which it is a request
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with client(rig):
            wait_for(lambda: rig.facts().event_loop[:2] == (1, 1), within=8)
        wait_for(lambda: rig.facts().event_loop[:2] == (0, 0))
