"""One request, one thread, one context: whatever an application binds to either while it answers is the request's own.

A random application of all kinds checks that itself, under clients of all kinds. SRVD_STRESS=1 makes it 20 times as
many requests; SRVD_SEED=N another choice of them.
"""

from __future__ import annotations

import contextvars
import hashlib
import os
import random
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import wait_for
from tests.support.worker_rig import Client, Rig

REQUESTS = 2400 if os.environ.get("SRVD_STRESS") else 120
SEED = int(os.environ.get("SRVD_SEED", "1"))
CLIENTS = 12

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
TEXT = [("Content-Type", "text/plain")]

USER: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
LOCAL = threading.local()


class Book:
    """What went wrong in the worker, and how many requests began and ended. One for each worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wrong: list[str] = []
        self.begun = self.closed = 0

    def claim(self, what: str, *, holds: bool) -> None:
        if not holds:
            with self.lock:
                self.wrong.append(what)

    def count(self, *, begun: int = 0, closed: int = 0) -> None:
        with self.lock:
            self.begun += begun
            self.closed += closed


BOOK = Book()


class Answer:
    """The response `me`: its blocks, and a look at everything that must be its own at each of them."""

    def __init__(self, me: str, blocks: list[int], *, fail: bool) -> None:
        BOOK.count(begun=1)
        BOOK.claim(f"{me} began with the context of {USER.get()}", holds=USER.get() == "nobody")
        inside = getattr(LOCAL, "inside", None)
        BOOK.claim(f"{me} began on a thread within {inside}", holds=inside is None)
        self.me = me
        self.thread = threading.get_ident()
        self.blocks = iter(blocks)
        self.fail = fail
        self.token = USER.set(me)
        LOCAL.inside = me
        if not hasattr(LOCAL, "database"):
            LOCAL.database = sqlite3.connect(":memory:", isolation_level=None)  # it checks its thread
            LOCAL.database.execute("CREATE TABLE mine (name)")
        LOCAL.database.execute("BEGIN")
        LOCAL.database.execute("INSERT INTO mine VALUES (?)", [me])
        self.rows = LOCAL.database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) SELECT name FROM n, mine"
        )

    def look(self) -> None:
        me = self.me
        BOOK.claim(f"{me} goes on in another thread", holds=threading.get_ident() == self.thread)
        BOOK.claim(f"{me} goes on in the context of {USER.get()}", holds=USER.get() == me)
        BOOK.claim(f"{me} goes on where {LOCAL.inside} is", holds=LOCAL.inside == me)
        BOOK.claim(f"{me} has lost its transaction", holds=LOCAL.database.in_transaction)
        BOOK.claim(f"{me} reads the rows of another", holds=self.rows.fetchone() == (me,))

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.look()
        size = next(self.blocks)
        if size % 7 == 0:
            time.sleep(0.002)
        if self.fail and size % 5 == 0:
            raise RuntimeError(self.me)
        return derived(self.me, size)

    def close(self) -> None:
        self.look()
        USER.reset(self.token)  # raises in another context
        LOCAL.database.execute("ROLLBACK")
        LOCAL.inside = None
        BOOK.count(closed=1)


def derived(number: str, size: int) -> bytes:
    """So many bytes that only this request's response has."""
    piece = hashlib.sha256(number.encode()).hexdigest().encode()
    return (piece * (size // len(piece) + 1))[:size]


def sizes(number: str) -> list[int]:
    """Of the blocks of a response; some are more than a socket takes."""
    choose = random.Random(number)
    most = choose.choice([1, 100, 10_000, 300_000])
    return [choose.randint(0, most) for _ in range(choose.randint(1, 12))]


def app(environ: Environ, start: Start) -> Iterable[bytes]:
    _, kind, number = environ["PATH_INFO"].split("/")
    if kind == "book":
        start("200 OK", TEXT)
        return [f"{BOOK.begun} {BOOK.closed}\n".encode(), "\n".join(BOOK.wrong[:20]).encode()]
    answer = Answer(number, sizes(number), fail=kind == "fail")
    if kind == "refuse":
        answer.close()
        raise RuntimeError(number)
    write = start("200 OK", TEXT)
    if kind == "write":
        try:
            for block in answer:
                write(block)
        except ConnectionError:  # the reader has left; nobody closes what was not returned
            answer.close()
            raise
        answer.blocks = iter(())
    return answer


class Reader:
    """A client of random manners, that checks what it is given."""

    def __init__(self, rig: Rig, name: int, count: int) -> None:
        self._rig = rig
        self._random = random.Random(SEED * 1000 + name)
        self._numbers = [f"{name}-{number}" for number in range(count)]

    def run(self) -> int:
        """How many it asked."""
        for number in self._numbers:
            self._ask(number, self._random.choice(["quick", "quick", "slow", "late", "leave", "reset"]))
        return len(self._numbers)

    def _ask(self, number: str, manner: str) -> None:
        kind = self._random.choice(["give", "give", "give", "write", "fail", "refuse"])
        version = self._random.choice(["1.0", "1.1", "1.1"])
        with Client.__new__(Client) as client:
            client.sock, client.buffer = socket.socket(), b""
            if manner != "quick":
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sock.settimeout(30)
            client.sock.connect(self._rig.address)
            client.send(f"GET /{kind}/{number} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            if manner in ("leave", "reset"):
                self._leave(client, hard=manner == "reset")
                return
            try:
                if manner == "late":
                    time.sleep(self._random.uniform(0, 0.05))
                elif manner == "slow":
                    for _ in range(10):
                        client.buffer += client.sock.recv(3000)
                        time.sleep(0.002)
                self._check(client, kind, number)
            except ConnectionResetError:  # so ends what has no length and is not whole
                assert (kind, version) == ("fail", "1.0")

    def _leave(self, client: Client, *, hard: bool) -> None:
        client.sock.recv(self._random.choice([1, 1000]))
        if hard:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _check(self, client: Client, kind: str, number: str) -> None:
        whole = b"".join(derived(number, size) for size in sizes(number))
        if kind in ("give", "write"):
            assert client.answer().body == whole, (kind, number)
            return
        # It failed before its first block, or within: then what came is a part, and does not look whole.
        head = client.read_until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 500 "):
            assert kind == "fail"
            self._check_part(client, head, whole)

    def _check_part(self, client: Client, head: bytes, whole: bytes) -> None:
        rest = client.rest()
        if b"chunked" in head and rest.endswith(b"0\r\n\r\n"):
            client.buffer = head + rest
            assert client.answer().body == whole
        elif b"chunked" not in head and b"Content-Length" not in head:
            assert rest == whole  # or it had been reset


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_whatever_an_application_binds_to_its_thread_or_context_is_its_own(tmp_path: Path, threads: int) -> None:
    choose = random.Random(SEED * 100 + threads)
    bounds: dict[str, Any] = {
        "body_memory": choose.choice([0, 300_000, 64 << 20]),
        "max_buffered_response": choose.choice([0, 200_000, 1 << 30]),
    }
    print(f"seed {SEED}, {bounds}")  # noqa: T201 - to repeat it
    with Rig(app, tmp_path, threads=threads, **bounds) as rig:
        rig.listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)  # which those have that are accepted
        rig.serving()
        with ThreadPoolExecutor(CLIENTS) as pool:
            readers = [Reader(rig, name, REQUESTS // CLIENTS) for name in range(CLIENTS)]
            asked = sum(pool.map(Reader.run, readers))
        rig.connections(0)
        begun, _, wrong = rig.get("/book/-").body.decode().partition("\n")
        assert wrong == ""
        assert begun == f"{asked} {asked}"
        wait_for(lambda: rig.facts().busy == 0)
        assert rig.facts().requests == asked + 1
        assert "a bug" not in rig.log()
        assert "close() of the response failed" not in rig.log()
