"""The times of a zygote whose daemon has died: when to call the next daemon, and when to give up.

Calls no daemon and ends no worker. Times are monotonic seconds and come in as arguments.
"""

from __future__ import annotations

from srvd.worker.supervision.reconnect import CALL_PAUSE

__all__ = ["GRACE", "OrphanClock"]

GRACE = 5.0
"""Seconds beyond the drain_timeout that workers have to leave when no daemon came, before the zygote kills them."""


class OrphanClock:
    """The times from the end of the link on: workers serve during `patience`, then drain, and then are killed."""

    def __init__(self, now: float, patience: float, drain: float) -> None:
        """patience: the orphan_timeout, drain: the drain_timeout of the pool, in seconds."""
        self._late = now + patience
        self._over = self._late + drain + GRACE
        self._next = now

    def wait(self, now: float, *, heard: bool, children: bool) -> float:
        """Seconds until the next call, or until the end. `heard`: a call was answered, so none is made."""
        end = self._over if children else self._late
        return max(0.0, (end if heard else min(end, self._next)) - now)

    def may_call(self, now: float) -> bool:
        """Whether it is time for the next call. If so, the call counts as made."""
        if now < self._next:
            return False
        self._next = now + CALL_PAUSE
        return True

    def is_late(self, now: float) -> bool:
        """Whether the workers drain by now."""
        return now >= self._late

    def is_over(self, now: float, *, children: bool) -> bool:
        """Whether the zygote gives up; with children only when these have had their time to leave."""
        return now >= (self._over if children else self._late)
