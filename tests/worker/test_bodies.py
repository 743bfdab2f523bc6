"""Bodies that wait: what they cost a worker in memory and on the disk, and that all of it is given back.

SRVD_STRESS=1 makes it 500 uploads and 500 downloads, within the default budget.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from srvd.worker.net.bodies.budget import Budget
from tests.support.waiting import stays, wait_for
from tests.support.worker_rig import Client, Rig

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]

MIB = 1 << 20
STRESS = bool(os.environ.get("SRVD_STRESS"))
COUNT = 500 if STRESS else 50
BUDGET = 64 * MIB if STRESS else 6 * MIB
MOST = 80 * MIB if STRESS else 24 * MIB
"""Bytes that all of them may cost: the budget, and what sockets, connections and the allocator take for so many."""

DOWNLOAD = 10 * MIB


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    start("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return (b"%07d\n" % number * 8192 for number in range(DOWNLOAD // 65_536))
    if environ["PATH_INFO"] == "/whole":
        return [b"".join(b"%07d\n" % number * 8192 for number in range(DOWNLOAD // 65_536))]
    if environ["PATH_INFO"] == "/held":
        return [b"%d" % sum(each.used for each in gc.get_objects() if isinstance(each, Budget))]
    return [b"%d" % len(environ["wsgi.input"].read())]


def memory(rig: Rig) -> int:
    """Bytes of the worker's own."""
    return int(psutil.Process(rig.pid).memory_full_info().uss)


def disk(rig: Rig) -> int:
    """Bytes of the unnamed files that it has open, but for those that this process has as well."""
    inherited = _unnamed("self")
    return sum(blocks * 512 for inode, blocks in _unnamed(rig.pid).items() if inode not in inherited)


def _unnamed(pid: int | str) -> dict[int, int]:
    """By inode, the blocks of each file without a name."""
    found = {}
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed just now
            status = fd.stat()
            if stat.S_ISREG(status.st_mode) and not status.st_nlink and "/memfd:" not in str(fd.readlink()):
                found[status.st_ino] = status.st_blocks
    return found


def connect(stack: ExitStack, rig: Rig) -> Client:
    client = Client.__new__(Client)
    client.sock, client.buffer = stack.enter_context(socket.socket()), b""
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    client.sock.settimeout(60)
    client.sock.connect(rig.address)
    return client


@pytest.mark.parametrize("threads", [1, 4])
def test_uploads_and_downloads_that_stop_cost_the_budget_and_the_disk(tmp_path: Path, threads: int) -> None:
    with (
        Rig(app, tmp_path, threads=threads, max_connections=3 * COUNT, body_memory=BUDGET, body_timeout=600.0) as rig,
        ExitStack() as stack,
    ):
        rig.serving()
        assert rig.get("/stream").status == 200
        rig.connections(0)
        before, files = memory(rig), psutil.Process(rig.pid).num_fds()
        uploads = [connect(stack, rig) for _ in range(COUNT)]
        for client in uploads:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (2 * MIB) + b"x" * MIB)
        downloads = [connect(stack, rig) for _ in range(COUNT)]
        for client in downloads:
            client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: rig.facts().requests == COUNT + 1, within=180)
        assert rig.get("/").body == b"0"  # and the worker serves
        cost, written = memory(rig) - before, disk(rig)
        print(  # noqa: T201 - figures to read
            f"{COUNT} uploads that stop at 1 MiB and {COUNT} downloads of 10 MiB, threads = {threads}: "
            f"{cost / MIB:.1f} MiB of memory, {written / MIB:.0f} MiB of disk"
        )
        assert cost <= MOST
        assert written > COUNT * DOWNLOAD // 4
        for client in uploads[::2]:
            assert client.send(b"x" * MIB).answer().body == b"%d" % (2 * MIB)
        for client in downloads[::2]:
            assert len(client.answer().body) == DOWNLOAD
        for client in (*uploads, *downloads):
            client.sock.close()
        rig.connections(0)
        assert rig.get("/").body == b"0"
        rig.connections(0)
        assert disk(rig) == 0
        assert psutil.Process(rig.pid).num_fds() <= files + 1  # the epoll of the sender
        assert rig.get("/held").body == b"0"
        # What the C library keeps of it for the next ones.
        print(f"left when all are gone: {(memory(rig) - before) / MIB:.1f} MiB")  # noqa: T201


def _holds(rig: Rig, size: int) -> bool:
    return int(rig.get("/held").body) == size


def _has_written(rig: Rig, size: int) -> bool:
    return disk(rig) >= size


@pytest.mark.parametrize(
    ("budget", "on_disk"), [(64 * MIB, [0, 0]), (18 * MIB, [0, 4 * MIB]), (12 * MIB, [4 * MIB, 8 * MIB])]
)
def test_long_uploads_are_in_memory_while_a_quarter_of_the_budget_is_enough(
    tmp_path: Path, budget: int, on_disk: list[int]
) -> None:
    with Rig(app, tmp_path, body_memory=budget) as rig, ExitStack() as stack:
        rig.serving()
        clients = [connect(stack, rig) for _ in on_disk]
        part = bytes(4 * MIB)
        for place, (client, written) in enumerate(zip(clients, on_disk, strict=True), 1):
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (4 * MIB + 5)).send(part)
            wait_for(partial(_holds, rig, place * 4 * MIB - written))
            wait_for(partial(_has_written, rig, written))
            assert disk(rig) <= written + MIB
        for client in clients:
            assert client.send(b"12345").answer().body == b"%d" % (4 * MIB + 5)
        wait_for(partial(_holds, rig, 0))
        assert disk(rig) == 0


def test_a_reader_that_is_always_behind_does_not_fill_the_disk(tmp_path: Path) -> None:
    """What was read of a response takes no room, though the response has not ended and its reader never caught up."""

    def endless(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        while True:
            yield b"x" * 100_000

    bound = 70 * MIB  # more than one file has
    with Rig(endless, tmp_path, threads=2, max_buffered_response=bound) as rig:
        with rig.serving().connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(200):
                client.read(MIB)
            assert disk(rig) < bound + 70 * MIB
        rig.connections(0)
        assert disk(rig) == 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bound", [0, 100_000])
def test_beyond_the_bound_the_application_waits_for_its_reader(tmp_path: Path, threads: int, bound: int) -> None:
    given = tmp_path / "given"

    def streaming(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        for number in range(320):
            given.write_text(str(number))
            yield b"x" * 65_536

    with Rig(streaming, tmp_path, threads=threads, max_buffered_response=bound, request_timeout=0.1) as rig:
        with rig.serving().connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.read_until(b"\r\n\r\n")
            wait_for(lambda: (last := given.read_text()) and stays(lambda: given.read_text() == last, 0.3))
            assert int(given.read_text()) < 319
            assert rig.facts().busy == 1
            assert len(client.rest()) > 320 * 65_536
        assert given.read_text() == "319"


def test_beyond_the_bound_a_reader_that_takes_nothing_is_given_up(tmp_path: Path) -> None:
    closed = tmp_path / "closed"

    def streaming(environ: Environ, start: Start) -> Iterator[bytes]:
        start("200 OK", [("Content-Type", "text/plain")])
        try:
            while True:
                yield b"x" * 65_536
        finally:
            closed.touch()

    with Rig(streaming, tmp_path, max_buffered_response=0, send_timeout=0.4) as rig, rig.serving().connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(closed.exists)
        rig.connections(0)


def test_a_full_disk_is_a_bound_like_another(tmp_path: Path) -> None:
    """The files of this worker may have no more than a megabyte (RLIMIT_FSIZE)."""

    def limited() -> object:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))
        return app

    with Rig(None, tmp_path, load=limited, body_memory=0) as rig, rig.serving().connect() as client:
        client.send(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        assert rig.facts().busy == 1
        assert client.read(DOWNLOAD) == app({"PATH_INFO": "/whole"}, lambda *_: print)[0]  # type: ignore[index]
