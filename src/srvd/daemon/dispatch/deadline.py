"""The core's next deadline as a timer of the loop, and what it means when it is seen late.

Knows nothing of what is due. A deadline that is seen late passed while the daemon stood still, perhaps with all others:
then they have a few seconds to show that they are in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from srvd.daemon.loop import Loop, Timer

__all__ = ["Deadline"]

_LATE = 1.0
"""Seconds by which a deadline may be seen late without a meaning: the machine is busy."""

_RESPITE = 5.0
"""Seconds for processes that stood still together with the daemon – the group was stopped, the container paused – to
show that they are in time. How long that was is not known: the deadline fell somewhere into it."""


class Deadline:
    """`due` tells the next deadline in monotonic seconds, None if there is none; `passed` is called at its time."""

    def __init__(self, loop: Loop, due: Callable[[], float | None], passed: Callable[[], None]) -> None:
        self._loop = loop
        self._next = due
        self._passed = passed
        self._timer: Timer | None = None
        self._due: float | None = None
        self._respite = 0.0  # no deadline has passed before

    def arm(self) -> None:
        """The deadline may have changed."""
        due = self._next()
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = None if due is None else self._loop.call_at(max(due, self._respite), self._on_time)

    def _on_time(self) -> None:
        now, due = time.monotonic(), self._due
        self._timer = self._due = None
        if due is not None and now - max(due, self._respite) > _LATE:
            self._respite = now + _RESPITE
            self.arm()
        else:
            self._passed()
