"""A body that is still coming: read from the connection when the application asks for it.

Blocks the thread that reads, for a bounded time. Knows nothing of the loop, and calls no application.
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
"""Bytes a second at which a body must come on the average, once `body_timeout` has passed."""

# So many bytes that the application did not want are read for it, if they are here already.
_UNWANTED = 65_536


class BodyStream(RawIOBase):
    """The body of `request`, whose head `inbound` has just read.

    Reading raises `BodyBroken` for what breaks the framing (RFC 9112 section 7), for a connection that ends before the
    body does, and when nothing came for `limit` seconds. After `finish` the connection is not touched any more, by
    whatever thread the application may have left behind: the next bytes on it are another request's.
    """

    def __init__(self, request: Request, inbound: Inbound, transport: Transport, limit: float) -> None:
        self._inbound = inbound
        self._transport = transport
        self._limit = limit
        self._kept_back = request.expects  # by the client, until it is asked for
        self._proceed: Callable[[], object] = _ignore
        self._on_trailers: Callable[[list[tuple[bytes, bytes]]], object] = _ignore
        self._waited = 0.0  # seconds that were spent on waiting for the client
        self._pieces: deque[memoryview] = deque()
        self._refusal: Refusal | None = None
        self._over = False
        self._finished = False
        self._lock = Lock()  # of what is said about a read: it is done whole, or not at all

    def tell_to(
        self, proceed: Callable[[], object], on_trailers: Callable[[list[tuple[bytes, bytes]]], object]
    ) -> None:
        """`proceed` is called before the first read if the client keeps the body back, to ask for it; `on_trailers`
        with the fields behind the body, if there are any.
        """
        self._proceed = proceed
        self._on_trailers = on_trailers

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """As `io.RawIOBase.readinto`: `buffer` is anything that can be written to; 0 is the body's end."""
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
        """The request is over. True: the body is, too, and the connection can take another request.

        What is left of it and here already is thrown away, within bounds.
        """
        self.let_go()
        unwanted = 0
        try:
            # Who keeps its body back has had its answer; whether the body still comes cannot be known.
            while not self._over and self._refusal is None and not self._kept_back and unwanted < _UNWANTED:
                unwanted += self._take(b"")
                if not self._over:
                    unwanted += self._take(self._transport.recv(READ)) or _UNWANTED
        except OSError:  # BlockingIOError: the rest is not here
            return False
        finally:
            self._pieces.clear()
        return self._over

    def let_go(self) -> None:
        """The connection is not the application's any more."""
        with self._lock:
            self._finished = True
            self._pieces.clear()
            self._proceed = self._on_trailers = _ignore  # they hold this object: a circle, if they stayed
        self.close()

    def _fill(self) -> bool:
        """False: what comes next is not here yet."""
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
        """Gives the body what came; how many bytes of content that was."""
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
        """Until something came. The client's time runs only here, not while the application does something else."""
        body, limit = self._inbound.body, self._limit
        if body is None:  # in the meantime `finish` was called, by another thread
            return
        poll = make_poll()
        poll.register(self._transport.fileno(), POLLIN)
        slowest = limit + body.received / LEAST_RATE - self._waited
        left = max(min(limit, slowest), 0.0)
        began = monotonic()
        if not poll.poll(None if left == NEVER else left * 1000):
            raise self._broken(Refusal(408, "the request did not come in time"))
        self._waited += monotonic() - began

    def _broken(self, refusal: Refusal) -> BodyBroken:
        self._refusal = refusal
        return BodyBroken(refusal)


def _ignore(*_: object) -> None:
    """The request is over, or the application has not got it yet."""
