"""One request as its application receives it: the body as it comes, then the end of the connection.

Reads no socket: the connection feeds it. Sends nothing: `http.py` has the response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from srvd.http.h1.head import Request
    from srvd.worker.asgi.application import AsgiApplication

__all__ = ["IncomingRequest", "Message"]

Message = dict[str, Any]


class _Body(Enum):
    """How much of a body there is."""

    COMING = "coming"  # more of it will come
    WHOLE = "whole"  # the application has not taken its end
    TAKEN = "taken"


_COMING, _WHOLE, _TAKEN = _Body.COMING, _Body.WHOLE, _Body.TAKEN


class IncomingRequest:
    """The receiving side of a request under way."""

    __slots__ = (
        "_application", "_body", "_pieces", "_waiters", "began", "ended", "gave", "gone", "left", "request",
        "unread", "waits_for_body",
    )  # fmt: skip

    def __init__(self, application: AsgiApplication, request: Request, now: float) -> None:
        self._application = application
        self.request = request
        self._pieces: list[bytes | bytearray] = [request.whole] if request.whole else []
        self._body = _WHOLE
        self._waiters: list[asyncio.Future[None]] = []  # calls of receive and send that wait
        self.unread = len(request.whole)
        """Bytes of the body that the application has not taken."""
        self.waits_for_body = False
        self.began = self.gave = now
        self.ended = False
        """Whether the response is complete, or will never be."""
        self.left = False
        """Whether the client has ended its sending; it may still read."""
        self.gone = False
        """Whether the client is gone: nothing is sent any more."""

    def expect_body(self) -> None:
        """Tells, before `begin`, that the body comes in pieces, by `feed`."""
        self._body = _COMING

    def feed(self, pieces: Sequence[bytes | bytearray], *, more: bool) -> None:
        """Adds pieces of the body."""
        for piece in pieces:
            self._pieces.append(piece)
            self.unread += len(piece)
        self._body = _COMING if more else _WHOLE
        if self._waiters:
            self.wake()

    def wake(self) -> None:
        """Lets the calls of receive and send that wait look again."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def lose(self) -> None:
        """Takes note that the client is gone."""
        self.gone = True
        self.wake()

    def leave(self) -> None:
        """Takes note that the client has ended its sending: the application is told if it asks, and may still send."""
        self.left = True
        self.wake()

    async def receive(self) -> Message:
        """Returns the next part of the body; after it, waits for the end of the response or of the connection."""
        if self._body is not _TAKEN:
            while self._lacks_body():
                self._read_on()
                if not self._lacks_body():  # to ask for it has shown that the client is gone
                    break
                self.waits_for_body = True
                try:
                    await self._wait()
                finally:
                    self.waits_for_body = False
            if (self._pieces or self._body is _WHOLE) and not self.ended:
                return self._next_part()
        while not self.left and not self.gone and not self.ended:
            await self._wait()
        return {"type": "http.disconnect"}

    def _lacks_body(self) -> bool:
        return not self._pieces and self._body is _COMING and not self.gone and not self.ended

    def _next_part(self) -> Message:
        pieces = self._pieces
        body = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread = 0
        more = self._body is _COMING
        if more:
            self._read_on()
        else:
            self._body = _TAKEN
        self.gave = monotonic()
        return {"type": "http.request", "body": body, "more_body": more}

    def _read_on(self) -> None:
        """Asks the connection for more of the body."""
        raise NotImplementedError

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = self._application.loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
