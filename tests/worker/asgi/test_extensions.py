"""Extensions that an application of ASGI finds in its scope: files as bodies, early hints, trailers."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.support.worker_rig import Rig as AnyRig
from tests.worker.asgi.test_http import given, part, start

Scope = dict[str, Any]
Rig = partial(AnyRig, lifespan="off")
SIZE = 9_000_000
HINT = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}


def path_send(path: Path | str) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": str(path)}


def test_a_file_is_the_body(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(SIZE))

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        await send(path_send(file))

    with Rig(app, tmp_path) as rig:
        rig.serving()
        before = len(os.listdir(f"/proc/{rig.pid}/fd"))
        with rig.connect() as client:
            for _ in range(3):
                answer = client.get()
                assert answer.headers["content-length"] == str(SIZE)
                assert answer.body == file.read_bytes()
            head = client.get(method="HEAD")
            assert head.headers["content-length"] == str(SIZE)
            assert client.get().status == 200
        rig.connections(0)
        assert len(os.listdir(f"/proc/{rig.pid}/fd")) == before


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([start(), path_send("/absent")], "FileNotFoundError"),
        ([start(), path_send("relative")], "'relative' is no absolute path"),
        ([start(), path_send("/")], "'/' is no regular file"),
        ([start(200, (b"content-length", b"5")), path_send(__file__)], "bytes longer than its Content-Length"),
        ([path_send(__file__)], "is no message of a response"),
        ([{"type": "http.response.early_hint", "links": ["text"]}], "links are no list of bytes"),
        ([{"type": "http.response.early_hint", "links": [b"a\r\nb: c"]}], "a header has CR, LF or NUL"),
        ([start(), HINT], "early hints come before the response"),
    ],
)
def test_a_wrong_one_puts_nothing_on_the_wire(tmp_path: Path, messages: list[Any], why: str) -> None:
    sent, log = given(tmp_path, *messages)
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert why in log


@pytest.mark.parametrize("length", [True, False])
def test_a_file_may_come_long_after_the_start(tmp_path: Path, length: bool) -> None:
    """As behind a middleware that passes messages on between tasks: the head was sent meanwhile."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(SIZE))
    head_seen = tmp_path / "head"
    fields = [(b"content-length", b"%d" % SIZE)] if length else []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(start(200, *fields))
        while not head_seen.exists():
            await asyncio.sleep(0.01)
        await send(path_send(file))

    with Rig(app, tmp_path) as rig:
        rig.serving()
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            head = client.read_until(b"\r\n\r\n")
            head_seen.touch()
            client.buffer = head + client.buffer
            assert client.answer().body == file.read_bytes()
            assert client.get().status == 200
        rig.connections(0)
        assert rig.log() == ""


@pytest.mark.parametrize(("version", "length"), [("1.1", True), ("1.1", False), ("1.0", False)])
def test_parts_of_open_files_are_parts_of_the_body(tmp_path: Path, version: str, length: bool) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(SIZE))
    fields = [(b"content-length", b"%d" % (6 + 2 * SIZE))] if length else []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(start(200, *fields))
        await send({"type": "http.response.body", "body": b"<", "more_body": True})
        with file.open("rb") as opened:
            part = {"type": "http.response.zerocopysend", "file": opened, "more_body": True}
            await send({**part, "count": 10})
            await send(part)  # from where the first one has ended
            assert opened.tell() == SIZE
            for _ in range(40):  # more than wait at a time
                await send({**part, "file": opened.fileno(), "offset": 7, "count": 0})
            await send({"type": "http.response.body", "body": b"mid", "more_body": True})
            await send({**part, "offset": 0, "count": SIZE})
        await send({"type": "http.response.body", "body": b"/>"})

    with Rig(app, tmp_path) as rig:
        rig.serving()
        before = len(os.listdir(f"/proc/{rig.pid}/fd"))
        answer = rig.get(version=version)
        assert answer.body == b"<" + file.read_bytes() + b"mid" + file.read_bytes() + b"/>"
        assert rig.get(method="HEAD").status == 200
        rig.connections(0)
        assert len(os.listdir(f"/proc/{rig.pid}/fd")) == before
        assert rig.log() == ""


def test_a_client_that_takes_no_file_makes_the_application_wait(tmp_path: Path) -> None:
    file, told = tmp_path / "file", tmp_path / "told"
    file.write_bytes(bytes(1 << 20))

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(start())
        sent = 0
        try:
            with file.open("rb") as opened:
                while True:
                    await send({
                        "type": "http.response.zerocopysend", "file": opened, "offset": 0, "more_body": True,
                    })  # fmt: skip
                    sent += 1
        except OSError:
            told.write_text(str(sent))

    with Rig(app, tmp_path) as rig:
        rig.serving()
        before = len(os.listdir(f"/proc/{rig.pid}/fd"))
        with rig.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            wait_for(lambda: len(os.listdir(f"/proc/{rig.pid}/fd")) > before + 1, 30.0)
            assert len(os.listdir(f"/proc/{rig.pid}/fd")) < before + 30
        wait_for(lambda: told.exists() and told.read_text() != "", 30.0)
        rig.connections(0)
        wait_for(lambda: len(os.listdir(f"/proc/{rig.pid}/fd")) == before, 30.0)
        assert rig.log() == ""


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_hints_come_before_the_response(tmp_path: Path, version: str) -> None:
    sent, log = given(
        tmp_path, HINT, start(), {"type": "http.response.body", "body": b"hello"}, version=version
    )  # fmt: skip
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.js>; rel=preload\r\n\r\n"
    assert sent.startswith(hints + b"HTTP/1.1 200 OK\r\n" if version == "1.1" else b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nhello")
    assert log == ""


def trailers(*fields: tuple[bytes, bytes], more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": list(fields), "more_trailers": more}


TRAILING = {**start(), "trailers": True}
SUM, SIGN = (b"x-sum", b"42"), (b"x-sign", b"ok")


def test_trailers_come_behind_the_body_for_a_client_that_reads_them(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({**TRAILING, "headers": [(b"trailer", b"x-sum")] if scope["path"] == "/named" else []})
        await send(part(b"one"))
        await asyncio.sleep(0)
        await send(trailers(SUM, more=True))
        await send(trailers(SIGN))

    ask = b"GET / HTTP/1.1\r\nHost: t\r\nTE: %b\r\n\r\n"
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        for spelled in (b"trailers", b"gzip;q=0.5, Trailers"):
            client.send(ask % spelled)
            assert b"Transfer-Encoding: chunked\r\n" in client.read_until(b"\r\n\r\n")
            assert client.read_until(b"\r\n\r\n") == b"3\r\none\r\n0\r\nx-sum: 42\r\nx-sign: ok\r\n\r\n"
        # RFC 9110 section 6.5.1: not for others; the response is the same without them.
        answer = client.get()
        assert (answer.headers["content-length"], answer.body) == ("3", b"one")
        assert client.get(method="HEAD").headers["content-length"] == "3"
        assert client.get("/", "TE: trailers", version="1.0").body == b"one"
    assert rig.log() == ""


def test_trailers_come_behind_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(TRAILING)
        await send(path_send(tmp_path / "file"))
        await send(trailers(SUM))

    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\n\r\n").read_until(b"\r\n\r\n")
        assert client.read_until(b"\r\n\r\n") == b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\nx-sum: 42\r\n\r\n"
        assert client.get().body == b"x" * 100_000


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([start(), part(b"one"), trailers(SUM)], "was not announced"),
        ([TRAILING, trailers(SUM)], "came before the end of the body"),
        ([TRAILING, part(b"one"), part(b"two")], "the response has ended"),
        ([TRAILING, part(b"one"), trailers(SUM), trailers(SUM)], "was not announced"),
        ([TRAILING, part(b"one"), trailers((b"x\r\n", b"1"))], "is no header name"),
        ([TRAILING, part(b"one"), trailers((b"x", b"1\r\nX-Evil: 1"))], "a header has CR, LF or NUL"),
        *(
            ([TRAILING, part(b"one"), trailers((name, b"1"))], f"{name.decode().lower()} cannot be a trailer")
            for name in (b"content-length", b"transfer-encoding", b"host", b"set-cookie", b"content-type", b"trailer")
        ),
        ([TRAILING, part(b"one"), {"type": "http.response.trailers"}], "headers are no list"),
        ([TRAILING, part(b"one")], "returned before the end of its response"),
    ],
)
def test_wrong_trailers_raise_and_the_client_sees_a_cut_response_or_a_whole_one(
    tmp_path: Path, messages: list[Any], why: str
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    with Rig(app, tmp_path) as rig:
        with rig.serving().connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: close\r\n\r\n")
            sent = client.rest()
        wait_for(lambda: why in rig.log())
    assert b"X-Evil" not in sent
    assert sent.endswith((b"3\r\none\r\n", b"500 Internal Server Error\n", b"one", b"\r\nx-sum: 42\r\n\r\n"))
