"""`stream_bodies = true`: the application reads the body from the connection, while it comes."""

from __future__ import annotations

import gc
import hashlib
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

from srvd.http.h1.reader import Inbound
from srvd.worker.net.bodies.stream import BodyStream
from tests.support.http_feed import TEMPLATE, reader, request
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client, Rig

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
    elif path == "/late":
        yield b"first "
        yield body.read(4)
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
        # RFC 9110 section 10.1.1: it says that the body will not be read.
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"not read", "close")
        assert client.ended()


def test_rfc9110_10_1_1_a_response_that_has_begun_has_no_100_in_it(rig: Rig) -> None:
    with rig.connect() as client:
        client.send(HEAD % b"/late" + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        head = client.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in head
        assert client.read_until(b"first \r\n") == b"6\r\nfirst \r\n"
        assert client.send(b"last").rest() == b"4\r\nlast\r\n0\r\n\r\n"


def test_a_client_that_does_not_wait_for_100_keeps_its_connection(rig: Rig) -> None:
    with rig.connect() as client:
        for _ in range(2):
            client.send(HEAD % b"/lines" + b"Expect: 100-continue\r\nContent-Length: 8\r\n\r\none\n")
            assert client.read_until(b"one\n").startswith(b"HTTP/1.1 200 OK\r\n")
            assert client.send(b"two\n").read_until(b"\r\n0\r\n\r\n").endswith(b"heard two\n\r\n2\r\n[]\r\n0\r\n\r\n")


def test_what_the_application_did_not_read_is_thrown_away_if_it_is_here(rig: Rig) -> None:
    unread = HEAD % b"/never" + b"Content-Length: 60\r\n\r\n"
    evil = b"GET /evil HTTP/1.1\r\nHost: test\r\n\r\n".ljust(60)
    with rig.connect() as client:
        client.send(unread + evil + b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.answer().body == b"not read"
        assert client.answer().body == b"/next"
        client.send(HEAD % b"/never" + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert client.answer().body == b"not read"
        assert client.get("/next").body == b"/next"
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


def test_only_the_client_s_own_time_is_counted(tmp_path: Path) -> None:
    """The application thinks for longer than body_timeout before it asks for a body."""

    def thinking(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        time.sleep(0.6)
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    with Rig(thinking, tmp_path, stream_bodies=True, body_timeout=0.5) as rig, rig.serving().connect() as client:
        client.send(HEAD % b"/" + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert client.send(b"body").answer().body == b"body"


def test_a_stream_goes_with_its_request(tmp_path: Path) -> None:
    """At once: a circle would wait for the collector, with all that the application put into the environ."""
    streams: list[weakref.ref[Any]] = []

    def watched(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        gc.disable()
        alive = sum(stream() is not None for stream in streams)
        environ["wsgi.input"].read(3)
        streams.append(weakref.ref(environ["wsgi.input"]))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % alive]

    with Rig(watched, tmp_path, stream_bodies=True) as rig, rig.serving().connect() as client:
        for _ in range(3):
            client.send(HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
            assert client.answer().body == b"0"


def test_a_stream_that_is_kept_reads_nothing_of_the_next_request(tmp_path: Path) -> None:
    with Rig(kept, tmp_path, stream_bodies=True) as rig, rig.serving().connect() as client:
        client.send(HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n")
        assert client.answer().body == b"first"
        client.send(HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n")
        assert client.answer().body == b"closed"


class Wire:
    """A transport on which bytes arrive when the test says so, and are told of when it says so."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.data = b""
        self.asked = 0
        self.bell = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self.bell

    def recv(self, bufsize: int, /) -> bytes:
        self.asked += 1
        if not self.data:
            raise BlockingIOError
        data, self.data = self.data, b""
        return data

    def send(self, data: bytes | memoryview, /) -> int:
        raise AssertionError(data)

    def shutdown(self, how: int, /) -> None:
        raise AssertionError(how)

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None:
        raise AssertionError(option)

    def close(self) -> None:
        os.close(self.bell)


def test_a_thread_that_still_reads_when_the_request_is_over_takes_nothing_of_the_next() -> None:
    inbound, wire = Inbound(reader(), TEMPLATE), Wire()
    head = inbound.receive(request("Content-Length: 10"))
    assert head is not None
    stream = BodyStream(head, inbound, wire, 10.0)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(stream.read, 10)
        wait_for(lambda: wire.asked)
        wire.data = b"0123456789"
        assert stream.finish()
        wire.data = following = request(line="GET /next HTTP/1.1")
        os.eventfd_write(wire.bell, 1)
        with pytest.raises(ValueError, match="over"):
            reading.result(10)
    assert wire.data == following
    wire.close()


def test_the_environ_says_nothing_of_chunks_for_what_is_read_is_decoded(tmp_path: Path) -> None:
    """RFC 9112 section 7.1.3. A framework that finds the field would look for chunks in the content."""

    def told(environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str("HTTP_TRANSFER_ENCODING" in environ).encode() + environ["wsgi.input"].read()]

    with Rig(told, tmp_path, stream_bodies=True) as rig, rig.serving().connect() as client:
        client.send(HEAD % b"/" + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        assert client.answer().body == b"Falsehello"
