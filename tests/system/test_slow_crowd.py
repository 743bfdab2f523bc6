"""A crowd of slow, silent and rude clients against a real srvd with one worker: a healthy client does not notice.

Single kinds of slowness are worker/test_slow_peers.py's. `SLOW_PEERS` says how many there are in the comparison with a
server that has none (2,000 are a long run).
"""

from __future__ import annotations

import os
import socket
import statistics
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, ask, toml
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client

pytestmark = [pytest.mark.system, pytest.mark.slow]

PEERS = int(os.environ.get("SLOW_PEERS", "300"))
SLOWER = 1.2 if PEERS >= 2000 else 4.0  # the long form is run by hand, on a machine that does nothing else
"""So many times may the median answer take as long with the crowd as without it; a short run is a noisy one."""
THROUGHOUT = 2.0
"""Seconds that the crowd stays."""

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/big":
        return (b"x" * 65_536 for _ in range(1024))
    return [b"ok"]
"""
WHOLE = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"GET / HTTP/1.1\r\nX: "
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
BIG = b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n"
NONSENSE = b"nonsense\r\n\r\n"


class Crowd:
    """Clients of every kind. Those that are slow go on sending a byte now and then, as long as they are let."""

    def __init__(self, address: tuple[str, int], stack: ExitStack) -> None:
        self._address = address
        self._stack = stack
        self.heads = self._many(60, HEAD)
        self.bodies = self._many(60, BODY)
        self.readers = self._many(20, BIG)
        self.idle = self._many(100, WHOLE)
        self.lingering = self._many(60, NONSENSE)
        self.silent = self._many(100, b"")
        for client in self.idle:
            assert client.answer().body == b"ok"
        for client in self.lingering:
            assert client.answer().status == 400

    @property
    def all(self) -> list[Client]:
        return [*self.heads, *self.bodies, *self.readers, *self.idle, *self.lingering, *self.silent]

    def _many(self, count: int, data: bytes) -> list[Client]:
        return [self._stack.enter_context(Client(self._address)).send(data) for _ in range(count)]

    def leave(self) -> None:
        """All at once, every other one with a reset."""
        for number, client in enumerate(self.all):
            if number % 2:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()


@contextmanager
def _dripping(clients: list[Client], each: float, data: bytes = b"x") -> Iterator[None]:
    """Each of them sends a byte about every so many seconds; those that were thrown out have nothing to send to."""
    over = threading.Event()

    def drip() -> None:
        pause = each / 20
        at = 0
        while not over.wait(pause):
            for client in clients[at::20]:
                try:
                    client.sock.send(data)
                except OSError:
                    continue
            at = (at + 1) % 20

    thread = threading.Thread(target=drip, name="drip", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def _worker(srvd: Srvd) -> psutil.Process:
    return psutil.Process(srvd.serving()[0]["pid"])


def _connections(srvd: Srvd) -> int:
    (worker,) = srvd.call("workers")["workers"]
    return int(worker["connections"])


def _is_healthy(srvd: Srvd, within: float) -> None:
    began = time.monotonic()
    assert srvd.get("/") == "ok"
    assert time.monotonic() - began < within


def test_a_healthy_client_is_answered_throughout_and_nothing_of_the_crowd_is_left(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"), code=APP)
    worker = _worker(srvd)
    _is_healthy(srvd, within=10)
    threads = worker.num_threads()
    with Client(srvd.address()).send(BIG):  # what sends to slow clients is made for the first one, and stays
        wait_for(lambda: worker.num_threads() == threads + 1)
    wait_for(lambda: _connections(srvd) == 0)
    fds = worker.num_fds()
    with ExitStack() as stack:
        crowd = Crowd(srvd.address(), stack)
        before = worker.memory_info().rss
        with _dripping([*crowd.heads, *crowd.bodies], each=0.3):
            until = time.monotonic() + THROUGHOUT
            while time.monotonic() < until:
                _is_healthy(srvd, within=10)
        assert worker.memory_info().rss - before < 8 << 20
        crowd.leave()
    wait_for(lambda: _connections(srvd) == 0)
    assert worker.num_fds() == fds
    assert "bug in srvd" not in srvd.logged()
    assert srvd.deaths() == []


def test_the_crowd_is_shown_out_by_its_deadlines(starter: Starter) -> None:
    """Each kind in its own way, however long it would go on."""
    limits = ("header_timeout", "body_timeout", "send_timeout", "keepalive_timeout")
    srvd = starter(config=toml("\n".join(["workers = 1", *(f'{limit} = "1500ms"' for limit in limits)])), code=APP)
    with ExitStack() as stack:
        crowd = Crowd(srvd.address(), stack)
        with _dripping([*crowd.heads, *crowd.bodies], each=0.5):
            _is_healthy(srvd, within=10)
            wait_for(lambda: _connections(srvd) == 0, within=20)
            _is_healthy(srvd, within=10)
        for client in [*crowd.heads, *crowd.bodies]:
            assert _last_words(client).startswith(b"HTTP/1.1 408 ")
        for client in [*crowd.idle, *crowd.silent]:
            assert client.ended()
    assert "bug in srvd" not in srvd.logged()


def _last_words(client: Client) -> bytes:
    """What came before the end; a reset, for what was sent after that, may be the end."""
    said = b""
    try:
        while data := client.sock.recv(65_536):
            said += data
    except ConnectionResetError:
        return said
    return said


def test_many_slow_heads_do_not_slow_down_a_healthy_client(
    starter: Starter, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two servers, one with the crowd; the same client asks them in turns, so that the machine's moods hit both."""
    config = toml(f"workers = 1\nmax_connections = {PEERS + 100}")
    crowded, lonely = starter(config=config, code=APP), starter(config=config, code=APP)
    with ExitStack() as stack:
        peers = [stack.enter_context(Client(crowded.address())).send(HEAD) for _ in range(PEERS)]
        wait_for(lambda: _connections(crowded) == PEERS)
        with _dripping(peers, each=PEERS / 200):
            with_crowd, without = _in_turns(crowded, lonely, 500)
        assert _connections(crowded) >= PEERS
    ratio = statistics.median(with_crowd) / statistics.median(without)
    told = f"beside {PEERS} slow heads {ratio:.2f} times the median of {statistics.median(without) * 1e6:.0f} µs"
    with capsys.disabled():
        sys.stdout.write(f"\n{told}\n")
    assert ratio < SLOWER, told


def _in_turns(one: Srvd, other: Srvd, count: int) -> tuple[list[float], list[float]]:
    """Seconds that each of so many requests took, on one connection each."""
    connections = [one.connect(), other.connect()]
    took: list[list[float]] = [[], []]
    for _ in range(count):
        for connection, times in zip(connections, took, strict=True):
            began = time.perf_counter()
            assert ask(connection) == "ok"
            times.append(time.perf_counter() - began)
    for connection in connections:
        connection.close()
    return took[0], took[1]
