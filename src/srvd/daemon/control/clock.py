"""One timer for all deadlines of the control socket.

Knows no deadline: it calls its owner, which looks for those that have passed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from srvd.daemon.loop import Loop, Timer

__all__ = ["NEVER", "Clock"]


NEVER = math.inf


class Clock:
    """One timer of the loop, set to the earliest moment that was asked for."""

    __slots__ = ("_at", "_callback", "_loop", "_timer")

    def __init__(self, loop: Loop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: Timer | None = None
        self._at = NEVER

    def wake_by(self, due: float) -> None:
        if due >= self._at:
            return
        self.stop()
        self._at = due
        self._timer = self._loop.call_at(due, self._fire)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._at = NEVER

    def _fire(self) -> None:
        self._timer = None
        self._at = NEVER
        self._callback()
