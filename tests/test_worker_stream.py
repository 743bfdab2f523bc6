"""`stream_bodies = true`: the application reads the body from the connection, while it comes."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from tests.worker_rig import Client, Rig

HEAD = b"POST %b HTTP/1.1\r\nHost: test\r\n"
KEPT: list[Any] = []


@validator
def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterator[bytes]:
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/lines":
        for line in body:
            yield b"heard " + line
        yield repr(environ.get("srvd.trailers", [])).encode()
    elif path == "/sum":
        digest, size = hashlib.sha256(), 0
        while piece := body.read(10_000):
            digest.update(piece)
            size += len(piece)
        yield f"{size} {digest.hexdigest()}".encode()
    elif path == "/never":
        yield b"not read"
    else:
        yield path.encode()


def kept(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
    """Reads the body of the request before, which is over."""
    told = b"first"
    if KEPT:
        try:
            told = KEPT.pop().read(5)
        except ValueError:
            told = b"closed"
    KEPT.append(environ["wsgi.input"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [told]


@pytest.fixture(params=[1, 4])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with Rig(app, tmp_path, threads=request.param, stream_bodies=True, max_body=1 << 25) as rig:
        yield rig.serving()
        assert "failed" not in rig.log()
        assert "bug in srvd" not in rig.log()


def chunk(client: Client) -> bytes:
    size = int(client.read_until(b"\r\n"), 16)
    return client.read(size + 2)[:-2]


@pytest.mark.parametrize("chunked", [False, True])
def test_the_application_answers_while_the_body_is_still_coming(rig: Rig, chunked: bool) -> None:
    lines = [b"one\n", b"two\n", b"three\n"]
    with rig.connect() as client:
        for _ in range(2):
            framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 14"
            client.send(HEAD % b"/lines" + framing + b"\r\n\r\n")
            for number, line in enumerate(lines):
                client.send(b"%x\r\n%b\r\n" % (len(line), line) if chunked else line)
                if not number:
                    client.read_until(b"\r\n\r\n")
                assert chunk(client) == b"heard " + line
            if chunked:
                client.send(b"0\r\nX-Sum: 1\r\n\r\n")
            assert chunk(client) == (b"[(b'X-Sum', b'1')]" if chunked else b"[]")
            assert chunk(client) == b""


def test_a_long_body_arrives_whole_and_the_next_request_after_it(rig: Rig) -> None:
    data = bytes(range(256)) * 80_000
    with rig.connect() as client:
        client.send(HEAD % b"/sum" + b"Content-Length: %d\r\n\r\n" % len(data))
        client.send(data + b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.answer().body.decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()}"
        assert client.answer().body == b"/next"


def test_a_client_that_waits_for_100_is_told_to_go_on_when_the_body_is_read(rig: Rig) -> None:
    expecting = b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    with rig.connect() as client:
        client.send(HEAD % b"/lines" + expecting)
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.send(b"one\n").answer().body == b"heard one\n[]"
        client.send(HEAD % b"/never" + expecting)
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"not read")
        assert client.ended()


def test_what_the_application_did_not_read_is_thrown_away_if_it_is_here(rig: Rig) -> None:
    unread = HEAD % b"/never" + b"Content-Length: 60\r\n\r\n"
    evil = b"GET /evil HTTP/1.1\r\nHost: test\r\n\r\n".ljust(60)
    with rig.connect() as client:
        client.send(unread + evil + b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.answer().body == b"not read"
        assert client.answer().body == b"/next"
        client.send(unread + evil[:-1])
        assert client.answer().body == b"not read"
        assert client.ended()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n3000000\r\n", 413),
    ],
)
def test_a_body_that_breaks_its_framing_never_looks_whole(rig: Rig, sent: bytes, status: int) -> None:
    with rig.connect() as client:
        assert client.send(HEAD % b"/sum" + sent).answer().status == status
        assert client.ended()


def test_a_body_that_is_cut_off_never_looks_whole(rig: Rig) -> None:
    with rig.connect() as client:
        client.send(HEAD % b"/sum" + b"Content-Length: 9\r\n\r\nhalf")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().status == 400
        assert client.ended()
    rig.connections(0)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, threads: int) -> None:
    with Rig(app, tmp_path, threads=threads, stream_bodies=True, body_timeout=0.2) as rig:
        with rig.serving().connect() as client:
            assert client.send(HEAD % b"/sum" + b"Content-Length: 9\r\n\r\nhalf").answer().status == 408
            assert client.ended()
        assert rig.get("/next").body == b"/next"


def test_a_stream_that_is_kept_reads_nothing_of_the_next_request(tmp_path: Path) -> None:
    with Rig(kept, tmp_path, stream_bodies=True) as rig, rig.serving().connect() as client:
        client.send(HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n")
        assert client.answer().body == b"first"
        client.send(HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n")
        assert client.answer().body == b"closed"
