"""Reads a request body from the connection when the application reads it.

Blocks the reading thread, for a bounded time. Knows nothing about the loop, and calls no application.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from io import RawIOBase
from select import POLLIN
from select import poll as make_poll
from threading import Lock
from time import monotonic
from typing import Any

from srvd.http.h1.head import Request
from srvd.http.h1.reader import Inbound
from srvd.http.h1.refusal import Refusal
from srvd.worker.loop import NEVER
from srvd.worker.net.errors import BodyBroken
from srvd.worker.net.transport import READ, Transport

__all__ = ["LEAST_RATE", "BodyStream"]

LEAST_RATE = 500
"""The least average rate of a body, in bytes a second, once `body_timeout` has passed."""

# The most bytes that are read and dropped after the application's end, if they have arrived already.
_UNWANTED = 65_536


class BodyStream(RawIOBase):
    """The body of `request`, whose head `inbound` has just read.

    Reading raises `BodyBroken` for malformed framing (RFC 9112 section 7), if the connection ends before the body, and
    if no byte arrives for `limit` seconds. After `finish`, the stream does not use the connection any more, even if a
    thread that the application has left behind reads: the next bytes belong to another request.
    """

    def __init__(self, request: Request, inbound: Inbound, transport: Transport, limit: float) -> None:
        self._inbound = inbound
        self._transport = transport
        self._limit = limit
        self._kept_back = request.expects  # the client waits for 100 Continue
        self._proceed: Callable[[], object] = _ignore
        self._on_trailers: Callable[[list[tuple[bytes, bytes]]], object] = _ignore
        self._waited = 0.0  # seconds spent waiting for the client
        self._pieces: deque[memoryview] = deque()
        self._refusal: Refusal | None = None
        self._over = False
        self._finished = False
        self._lock = Lock()  # makes a read and `let_go` exclude each other

    def tell_to(
        self, proceed: Callable[[], object], on_trailers: Callable[[list[tuple[bytes, bytes]]], object]
    ) -> None:
        """Sets the callbacks. `proceed` is called before the first read if the client waits for 100 Continue;
        `on_trailers` with the trailer fields, if there are any.
        """
        self._proceed = proceed
        self._on_trailers = on_trailers

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """`io.RawIOBase.readinto`: `buffer` is any writable buffer; returns 0 at the body's end."""
        if self._kept_back:
            self._kept_back = False
            self._proceed()
        while True:
            with self._lock:
                if self._finished:
                    raise ValueError("the request of this body is over")
                if self._fill():
                    return self._give(memoryview(buffer))
            self._wait()

    def finish(self) -> bool:
        """Ends the use of the body. Returns True if the body is complete, so that the connection can take another
        request.

        Reads and drops the rest of the body that has arrived already, up to a limit.
        """
        self.let_go()
        unwanted = 0
        try:
            # A client that still waits for 100 Continue has its answer; whether it will send the body is unknown.
            while not self._over and self._refusal is None and not self._kept_back and unwanted < _UNWANTED:
                unwanted += self._take(b"")
                if not self._over:
                    unwanted += self._take(self._transport.recv(READ)) or _UNWANTED
        except OSError:  # BlockingIOError: the rest has not arrived
            return False
        finally:
            self._pieces.clear()
        return self._over

    def let_go(self) -> None:
        """Ends the application's use of the connection."""
        with self._lock:
            self._finished = True
            self._pieces.clear()
            self._proceed = self._on_trailers = _ignore  # they refer to this object: a cycle, if they stayed
        self.close()

    def _fill(self) -> bool:
        """Reads until there is content or the body ends; False if the next bytes have not arrived yet."""
        if self._refusal is not None:
            raise BodyBroken(self._refusal)
        while not self._pieces and not self._over:
            if not self._take(b"") and not self._over:
                try:
                    data = self._transport.recv(READ)
                except BlockingIOError:
                    return False
                except OSError as exc:
                    why = f"the connection broke within the request: {exc.strerror}"
                    raise self._broken(Refusal(400, why)) from exc
                if not data:
                    raise self._broken(Refusal(400, "the connection ended within the request"))
                self._take(data)
        return True

    def _give(self, room: memoryview) -> int:
        if not self._pieces:
            return 0
        piece = self._pieces.popleft()
        size = min(len(piece), len(room))
        room[:size] = piece[:size]
        if size < len(piece):
            self._pieces.appendleft(piece[size:])
        return size

    def _take(self, data: bytes) -> int:
        """Decodes received bytes, and returns how many bytes of content they had."""
        inbound = self._inbound
        body = inbound.body
        assert body is not None
        try:
            pieces = inbound.read_body(data)
        except Refusal as refusal:
            raise self._broken(refusal) from None
        self._pieces.extend(map(memoryview, pieces))
        if body.complete:
            self._over = True
            inbound.end_body()
            if body.trailers:
                self._on_trailers(body.trailers)
        return sum(map(len, pieces))

    def _wait(self) -> None:
        """Waits for bytes of the client. Its time runs only here, not while the application does other work."""
        body, limit = self._inbound.body, self._limit
        if body is None:  # another thread has called `finish` meanwhile
            return
        poll = self._make_poll()
        poll.register(self._transport.fileno(), POLLIN)
        slowest = limit + body.received / LEAST_RATE - self._waited
        left = max(min(limit, slowest), 0.0)
        began = monotonic()
        if not poll.poll(None if left == NEVER else left * 1000):
            raise self._broken(Refusal(408, "the request did not come in time"))
        self._waited += monotonic() - began

    def _make_poll(self) -> Any:
        return make_poll()

    def _broken(self, refusal: Refusal) -> BodyBroken:
        self._refusal = refusal
        return BodyBroken(refusal)


def _ignore(*_: object) -> None:
    """Does nothing: before the application has the request, and after its end."""
