"""What a drain means for requests under way: event streams are told at once, others when most of the time is over.

A stream may last for ever, so its application is told as if its client had left. Ends no connection: `drain.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from srvd.worker.loop import NEVER
from srvd.worker.net.errors import ReaderGone

if TYPE_CHECKING:
    from srvd.worker.asgi.http import HttpCycle
    from srvd.worker.asgi.ws.cycle import WebSocketCycle
    from srvd.worker.loop import Loop

__all__ = ["Leaving"]

_LAST_WORDS = 1.0
"""Seconds for an event stream to end, after it was told."""
_SPREAD = 5.0
"""The most seconds over which the ends of WebSockets are spread."""
_TOLD_AT = 0.75
"""The part of the drain's time after which other requests are told."""


class Calls(Protocol):
    """The requests of a worker, by what they are."""

    @property
    def running(self) -> Iterable[HttpCycle]: ...

    @property
    def event_streams(self) -> Iterable[HttpCycle]: ...

    @property
    def websockets(self) -> Iterable[WebSocketCycle]: ...


class Leaving:
    """The end of the requests of a worker. Does nothing before `begin`."""

    def __init__(self, loop: Loop, calls: Calls) -> None:
        self._loop = loop
        self._calls = calls
        self._ends: list[tuple[float, WebSocketCycle]] = []  # when each WebSocket ends, the last one first
        self._tell_at = NEVER
        self._cut_at = NEVER
        self.until = NEVER
        """The end of the drain; NEVER before there is one."""
        self.deadline = NEVER
        loop.watch(self)

    @property
    def begun(self) -> bool:
        return self.until != NEVER

    def begin(self, now: float, until: float) -> None:
        self.until = until
        self._tell_at = now + (until - now) * _TOLD_AT
        self._cut_at = now + _LAST_WORDS
        for cycle in tuple(self._calls.event_streams):
            cycle.leave()
        sockets = tuple(self._calls.websockets)
        spread = min(_SPREAD, (until - now) / 4) / max(len(sockets), 1)
        self._ends = [(now + spread * place, cycle) for place, cycle in enumerate(sockets)][::-1]
        self._end_websockets(now)
        self._wake_at(min(now + _LAST_WORDS, self._tell_at, self._next_end()))

    def started(self, cycle: HttpCycle) -> None:
        """An event stream begins during the drain."""
        cycle.leave()
        self._cut_at = monotonic() + _LAST_WORDS
        self._wake_at(min(self.deadline, self._cut_at))

    def opened(self, cycle: WebSocketCycle) -> None:
        """A WebSocket begins during the drain."""
        last = self._ends[0][0] if self._ends else 0.0
        self._ends.insert(0, (max(monotonic() + _LAST_WORDS, last), cycle))
        self._wake_at(min(self.deadline, self._next_end()))

    def expire(self, now: float) -> None:
        """Cancels event streams that were told and have not ended, and tells the others when it is time."""
        self._end_websockets(now)
        for cycle in tuple(self._calls.event_streams) if now >= self._cut_at else ():
            cycle.cancel()
        for cycle in tuple(self._calls.running) if now >= self._tell_at else ():
            cycle.leave()
        later = (when for when in (self._cut_at, self._tell_at, self._next_end()) if when > now)
        self._wake_at(min(later, default=NEVER))

    def _next_end(self) -> float:
        return self._ends[-1][0] if self._ends else NEVER

    def _end_websockets(self, now: float) -> None:
        """Ends WebSockets one after another, so that their clients do not all come back at once."""
        while self._ends and self._ends[-1][0] <= now:
            with suppress(ReaderGone):
                self._ends.pop()[1].restart()

    def _wake_at(self, deadline: float) -> None:
        self.deadline = deadline
        self._loop.due_at(deadline)
