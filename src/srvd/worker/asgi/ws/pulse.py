"""The times of one WebSocket: when to ping, when a silent client is cut, how long a close frame is waited for.

Sends nothing, and reads no clock.
"""

from __future__ import annotations

from enum import Enum

from srvd.worker.loop import NEVER

__all__ = ["Due", "Pulse"]

_CLOSE_WITHIN = 10.0
"""Seconds for the other side's close frame."""


class Due(Enum):
    """What is to be done at the end of a time."""

    NOTHING = "nothing"  # the time was put off meanwhile
    PING = "ping"  # the client has said nothing for long
    CUT = "cut"  # it has not answered the ping
    CLOSE = "close"  # no close frame has come


class Pulse:
    """`every`: seconds of silence before a ping; `patience`: seconds for its answer."""

    __slots__ = ("_close_by", "_every", "_patience", "_pinged", "heard")

    def __init__(self, now: float, every: float, patience: float) -> None:
        self._every = every
        self._patience = patience
        self._pinged = 0.0  # when the last ping was sent
        self._close_by = NEVER
        self.heard = now
        """When the client last sent something."""

    @property
    def due(self) -> float:
        """When `look` is to be called next."""
        waits = self._pinged > self.heard
        return min(self._close_by, self._pinged + self._patience if waits else self.heard + self._every)

    def close_soon(self, now: float) -> None:
        """The close frame of one side is under way."""
        self._close_by = min(self._close_by, now + _CLOSE_WITHIN)

    def look(self, now: float) -> Due:
        if now >= self._close_by:
            return Due.CLOSE
        if now < self.due:
            return Due.NOTHING
        if self._pinged > self.heard:
            return Due.CUT
        self._pinged = now
        return Due.PING
