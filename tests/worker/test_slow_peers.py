"""Slow peers, silent peers and peers that go away: each costs the worker a table entry, never its attention."""

from __future__ import annotations

import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from select import select
from typing import Any

import psutil
import pytest

from tests.support.waiting import stays, wait_for
from tests.support.worker_rig import Client, Rig

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def app(environ: Environ, start: Start) -> Any:
    path = environ["PATH_INFO"]
    start("200 OK", [("Content-Type", "text/plain")])
    if path == "/big":
        return (b"x" * 65_536 for _ in range(1024))
    if path == "/write":
        return [b"ok"]
    if path == "/list":
        return [b"y" * (8 << 20)]
    return [b"ok"]


def alive(rig: Rig, within: float = 10.0) -> None:
    began = time.monotonic()
    assert rig.get().body == b"ok"
    assert time.monotonic() - began < within


def test_a_head_that_does_not_come_is_answered_408(tmp_path: Path) -> None:
    with Rig(app, tmp_path, header_timeout=0.3) as rig, rig.serving().connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHo")
        assert client.answer().status == 408
        assert client.ended()


def test_bytes_now_and_then_do_not_prolong_the_time_of_a_head(tmp_path: Path) -> None:
    with Rig(app, tmp_path, header_timeout=0.5) as rig, rig.serving().connect() as client:
        began = time.monotonic()
        client.sock.settimeout(0.05)
        for byte in REQUEST[:-2] * 10:
            try:
                client.send(bytes([byte]))
                client.buffer += client.sock.recv(100)
                break
            except TimeoutError:
                continue
        assert client.buffer.startswith(b"HTTP/1.1 408 ")
        assert 0.4 < time.monotonic() - began < 10


def test_a_connection_that_says_nothing_is_closed_without_a_word(tmp_path: Path) -> None:
    with Rig(app, tmp_path, header_timeout=0.2) as rig, rig.serving().connect() as client:
        assert client.ended()


def test_an_idle_connection_is_closed_after_keepalive_timeout(tmp_path: Path) -> None:
    with Rig(app, tmp_path, keepalive_timeout=0.3) as rig, rig.serving().connect() as client:
        assert client.get().body == b"ok"
        began = time.monotonic()
        assert client.ended()
        assert 0.2 < time.monotonic() - began < 10


@pytest.mark.parametrize("first", [True, False], ids=["first request", "next request"])
def test_a_request_that_came_in_time_is_answered_however_long_the_worker_was_busy(tmp_path: Path, first: bool) -> None:
    """What waits in a socket is read before a deadline counts as passed."""
    over = tmp_path / "over"

    def held(environ: Environ, start: Start) -> Any:
        while environ["PATH_INFO"] == "/held" and not over.exists():
            time.sleep(0.01)
        return app(environ, start)

    with Rig(held, tmp_path, keepalive_timeout=2, header_timeout=2) as rig, rig.serving().connect() as client:
        if not first:
            client.get()
        rig.connections(1)
        began = time.monotonic()
        with rig.connect() as other:
            other.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_for(lambda: rig.facts().busy == 1)
            client.send(REQUEST)
            wait_for(lambda: time.monotonic() - began > 2.5)
            over.touch()
            assert (other.answer().status, client.answer().status) == (200, 200)


def test_a_body_that_does_not_come_is_answered_408(tmp_path: Path) -> None:
    with Rig(app, tmp_path, body_timeout=0.3) as rig, rig.serving().connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
        assert client.answer().status == 408
        assert client.ended()


def test_a_body_that_trickles_is_answered_408(tmp_path: Path) -> None:
    """Each byte comes in time, but they are too few for a minimum rate."""
    with Rig(app, tmp_path, body_timeout=0.5) as rig, rig.serving().connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        client.sock.settimeout(0.1)
        for _ in range(50):
            try:
                client.send(b"x")
                client.buffer += client.sock.recv(100)
                break
            except TimeoutError:
                continue
        assert client.buffer.startswith(b"HTTP/1.1 408 ")


def test_a_reader_that_never_reads_is_reset_after_send_timeout(tmp_path: Path) -> None:
    with Rig(app, tmp_path, send_timeout=0.3) as rig, rig.serving().connect() as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        rig.connections(1)
        rig.connections(0)
        with pytest.raises(ConnectionResetError):
            client.rest()


def test_a_slow_reader_gets_every_byte_while_others_are_served(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig, rig.serving().connect() as slow:
        slow.send(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        for _ in range(20):
            slow.read(100_000)
            alive(rig)
        wait_for(lambda: rig.facts().busy == 0)  # a response that waits for its reader keeps nobody busy
        assert len(slow.rest()) + 2_000_000 > 1024 * 65_536
        wait_for(lambda: rig.facts().requests == 21)


def test_what_a_reader_has_not_taken_is_bounded(tmp_path: Path) -> None:
    """64 MiB for a client that does not read: no more is made of it than the kernel takes, and a block."""
    with Rig(app, tmp_path) as rig, rig.serving().connect() as client:
        alive(rig)
        before = psutil.Process(rig.pid).memory_info().rss
        client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read(1000)
        alive(rig)
        assert psutil.Process(rig.pid).memory_info().rss - before < 8 << 20


def test_slow_clients_of_every_kind_do_not_delay_a_healthy_one(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_connections=500) as rig, ExitStack() as stack:
        rig.serving()

        def many(count: int, data: bytes) -> list[Client]:
            return [stack.enter_context(rig.connect()).send(data) for _ in range(count)]

        many(60, b"GET / HTTP/1.1\r\nX: ")
        many(60, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx")
        many(20, b"GET /list HTTP/1.1\r\nHost: a\r\n\r\n")
        many(60, b"nonsense\r\n\r\n")  # refused, and lingering
        many(100, b"")
        idle = many(100, REQUEST)
        for client in idle:
            assert client.answer().body == b"ok"
        for _ in range(5):
            alive(rig)


def test_clients_that_reset_leave_no_descriptor_behind(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        alive(rig)
        process = psutil.Process(rig.pid)
        rig.connections(0)
        before = process.num_fds()
        for number in range(300):
            client = rig.connect()
            if number % 3:
                client.send((REQUEST, b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")[number % 2])
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
        rig.connections(0)
        alive(rig)
        rig.connections(0)
        assert process.num_fds() == before


def test_a_refused_client_gets_its_answer_although_it_goes_on_sending(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_body=1000) as rig, rig.serving().connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000)
        assert client.answer().status == 413
        assert client.ended()


def test_running_out_of_descriptors_is_survived_without_a_spin(tmp_path: Path) -> None:
    def limited() -> object:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        return app

    with Rig(None, tmp_path, load=limited) as rig, ExitStack() as stack:
        rig.serving()
        held = [stack.enter_context(rig.connect()) for _ in range(250)]
        process = psutil.Process(rig.pid)
        wait_for(lambda: rig.facts().connections >= 100)
        began = process.cpu_times()

        def spent() -> float:
            now = process.cpu_times()
            return float((now.user + now.system) - (began.user + began.system))

        assert stays(lambda: spent() < 0.2, 0.5)
        for client in held[:150]:
            client.sock.close()
        assert held[240].get().body == b"ok"


def test_more_connections_than_allowed_wait_in_the_backlog(tmp_path: Path) -> None:
    with Rig(app, tmp_path, max_connections=3) as rig, ExitStack() as stack:
        rig.serving()
        first = [stack.enter_context(rig.connect()) for _ in range(3)]
        for client in first:
            assert client.get().body == b"ok"
        fourth = stack.enter_context(rig.connect()).send(REQUEST)
        assert rig.facts().connections == 3
        first[0].sock.close()
        assert fourth.answer().body == b"ok"


def test_an_idle_worker_does_not_wake_up(tmp_path: Path) -> None:
    with Rig(app, tmp_path) as rig:
        rig.serving()
        alive(rig)
        rig.connections(0)
        process = psutil.Process(rig.pid)

        def settled() -> bool:
            first = process.num_ctx_switches().voluntary
            return stays(lambda: process.num_ctx_switches().voluntary == first, 0.3)

        wait_for(settled, within=5)
        assert settled()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", ["/iterable", "/write"])
def test_what_was_given_does_not_wait_for_what_comes_next(tmp_path: Path, threads: int, how: str) -> None:
    """PEP 3333, "Buffering and Streaming": whatever the kernel did not take at once is sent before the application is
    asked for more, however long that takes."""
    go_on, length = tmp_path / "go on", 300_000

    def pausing(environ: Environ, start: Start) -> Iterator[bytes]:
        write = start("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/write":
            write(b"x" * length)
        else:
            yield b"x" * length
        wait_for(go_on.exists)
        yield b"y"

    with Rig(pausing, tmp_path, threads=threads) as rig, Client.__new__(Client) as client:
        rig.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 30_000)  # which those have that are accepted
        rig.serving()
        client.sock, client.buffer = socket.socket(), b""
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sock.settimeout(5)
        client.sock.connect(rig.address)
        client.send(f"GET {how} HTTP/1.1\r\nHost: a\r\n\r\n".encode()).read_until(b"\r\n\r\n")
        assert client.read_until(b"\r\n") == b"%x\r\n" % length
        assert client.read(length) == b"x" * length
        go_on.touch()
        assert client.read_until(b"0\r\n\r\n") == b"\r\n1\r\ny\r\n0\r\n\r\n"


def test_an_unread_response_of_write_holds_no_more_than_its_client(tmp_path: Path) -> None:
    """write() cannot be suspended: the client that does not read is given up after send_timeout."""

    def writing(environ: Environ, start: Start) -> Iterator[bytes] | list[bytes]:
        write = start("200 OK", [("Content-Type", "text/plain")])
        if environ["PATH_INFO"] == "/big":
            for _ in range(1024):
                write(b"x" * 65_536)
        return [b"ok"]

    with Rig(writing, tmp_path, send_timeout=0.3) as rig:
        with rig.serving().connect() as client:
            client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            alive(rig)
            assert "Traceback" not in rig.log()
        with rig.connect() as client:
            assert len(client.get("/big", "Connection: close").body) == 64 << 20 | 2


@pytest.mark.parametrize("threads", [1, 2])
def test_a_client_that_sends_on_is_not_reset_before_it_can_read_why_it_was_refused(
    tmp_path: Path, threads: int
) -> None:
    """A proxy that is in the middle of a long body would say 502 for our answer."""
    with Rig(app, tmp_path, threads=threads) as rig, rig.serving().connect() as client:
        client.send(b"nonsense\r\n\r\n")
        client.sock.setblocking(False)
        sent = 0
        while sent < 16 << 20 and select([], [client.sock], [], 0.3)[1]:  # until all buffers are full
            sent += client.sock.send(b"x" * 65_536)
        assert sent > 1 << 17
        client.sock.settimeout(30)
        assert client.answer().status == 400
        client.sock.close()
        rig.connections(0)
