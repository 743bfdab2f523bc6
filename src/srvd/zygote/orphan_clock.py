"""How long a zygote waits for the next daemon when its own has died, and when it calls for it.

Calls nobody itself and ends nobody: it only knows the time, which comes in as an argument.
"""

from __future__ import annotations

from srvd.worker.reconnect import CALL_PAUSE

__all__ = ["GRACE", "Orphanhood"]

GRACE = 5.0
"""Seconds beyond its drain_timeout that a worker has to leave when nobody came, before its zygote ends it."""


class Orphanhood:
    """From the end of the link on: until `patience` is over the workers serve, then they drain, then they are ended."""

    def __init__(self, now: float, patience: float, drain: float) -> None:
        self._late = now + patience
        self._over = self._late + drain + GRACE
        self._next = now

    def wait(self, now: float, *, heard: bool, children: bool) -> float:
        """Seconds until there is something to do: the next call, unless somebody has heard one, or the end."""
        end = self._over if children else self._late
        return max(0.0, (end if heard else min(end, self._next)) - now)

    def may_call(self, now: float) -> bool:
        """Whether it is time for the next call; counted as made."""
        if now < self._next:
            return False
        self._next = now + CALL_PAUSE
        return True

    def is_late(self, now: float) -> bool:
        """Whether the workers are leaving by now."""
        return now >= self._late

    def is_over(self, now: float, *, children: bool) -> bool:
        """Whether to wait no longer: with children until they have had their time to leave."""
        return now >= (self._over if children else self._late)
