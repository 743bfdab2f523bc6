"""Clients that ask all the time over keep-alive connections, and what they met. Starts and stops no server."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.support.waiting import wait_for

PACE = 0.002
"""Seconds that a client rests between two requests, at least: the load shall meet every moment, not fill the machine.
It rests for twice as long as the request has taken, but no longer than `LONGEST_REST`.
"""
LONGEST_REST = 0.05


class Failure(NamedTuple):
    """A request that was not answered with 200. `holder` is the worker that answered before on that connection."""

    at: float
    what: str
    holder: str
    port: int  # the client's; 0: it was not connected


@dataclass
class Load:
    address: tuple[str, int]
    path: str = "/"
    answered: int = 0
    failed: list[Failure] = field(default_factory=list)
    releases: set[str] = field(default_factory=set)  # of the application, by its answers
    gap: float = 0.0  # the longest time in which no client at all was answered
    over: threading.Event = field(default_factory=threading.Event)
    context: ssl.SSLContext | None = None  # speak TLS, and name the server shop.example
    _last: float = 0.0

    def connect(self) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(*self.address, timeout=30)
        plain = socket.create_connection(self.address, timeout=30)
        connection = http.client.HTTPConnection("shop.example", timeout=30)
        try:
            connection.sock = self.context.wrap_socket(plain, server_hostname="shop.example")
        except BaseException:
            plain.close()
            raise
        return connection

    def client(self) -> None:
        """One client: it keeps its connection until the server says otherwise, and never repeats a request."""
        connection: http.client.HTTPConnection | None = None
        holder, port, rest = "", 0, PACE
        while not self.over.wait(rest):
            began = time.monotonic()
            try:
                if connection is None:
                    connection, holder, port = self.connect(), "", 0
                    if connection.sock is None:  # with TLS it is connected already
                        connection.connect()
                    port = connection.sock.getsockname()[1]
                connection.request("GET", self.path)
                response = connection.getresponse()
                body = response.read().decode()
            except (OSError, http.client.HTTPException) as exc:
                self.failed.append(Failure(time.monotonic(), repr(exc), holder, port))
                if connection is not None:
                    connection.close()
                connection = None
                continue
            holder = self._count(response.status, body, holder, port)
            rest = min(max(PACE, 2 * (time.monotonic() - began)), LONGEST_REST)
            if response.will_close:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _count(self, status: int, body: str, holder: str, port: int) -> str:
        now = time.monotonic()
        if self._last:
            self.gap = max(self.gap, now - self._last)
        self._last = now
        self.answered += 1
        if status != 200:
            self.failed.append(Failure(now, f"{status} {body[:80]}", holder, port))
            return holder
        release, worker, _ = body.split()
        self.releases.add(release)
        return worker

    def more(self, requests: int = 50) -> None:
        """Returns when so many more have been answered."""
        until = self.answered + requests
        wait_for(lambda: self.answered >= until, within=60)


@contextmanager
def load_on(
    address: tuple[str, int], clients: int = 8, path: str = "/", context: ssl.SSLContext | None = None
) -> Iterator[Load]:
    """So many clients ask as long as the block lasts, and a moment longer: what is broken then is seen, too."""
    load = Load(address, path, context=context)
    threads = [threading.Thread(target=load.client, name=f"client {n}", daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    try:
        load.more(clients)
        yield load
        if not load.over.is_set():
            load.more()
    finally:
        load.over.set()
        for thread in threads:
            thread.join(60)
