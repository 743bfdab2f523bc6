"""When a worker has served long enough: it tells the daemon, once, and serves on until it is told to leave.

Does not end the worker: its replacement must serve first, and that is the daemon's to see to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from srvd.worker.loop import NEVER

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.worker.loop import Loop

__all__ = ["Recycling"]

_AGAIN = 1.0
"""Seconds until the daemon is told once more if its link was full."""


class Recycling:
    """Counts requests, and keeps the age. `say` tells the daemon why; False: it could not be told now."""

    def __init__(self, settings: PoolSettings, loop: Loop, say: Callable[[str], bool]) -> None:
        self._loop = loop
        self._say = say
        self._most = settings.max_requests and settings.max_requests + _at_random(settings.max_requests_jitter)
        self._age = settings.max_age
        self._served = count(1)  # its next() is one step, whatever threads there are
        self._reason = ""
        self.deadline = NEVER
        loop.watch(self)

    def __repr__(self) -> str:
        return f"<Recycling at {self._most or 'any number of'} requests, {self._age or 'any number of'} s>"

    @property
    def counts(self) -> bool:
        """Whether `served` must be called."""
        return self._most > 0

    def begin(self, now: float) -> None:
        """It accepts from now on: this is when its age begins."""
        if self._age:
            self.deadline = now + self._age
            self._loop.due_at(self.deadline)

    def served(self, now: float) -> None:
        """One more request has been answered."""
        if next(self._served) == self._most:
            self._tell(f"served {self._most} requests", now)

    def expire(self, now: float) -> None:
        """It is old enough, or the daemon could not be told before."""
        self.deadline = NEVER
        self._tell(self._reason or f"served for {self._age:g} s", now)

    def _tell(self, reason: str, now: float) -> None:
        self._reason = reason
        self.deadline = NEVER if self._say(reason) else now + _AGAIN
        self._loop.due_at(self.deadline)


def _at_random(most: int) -> int:
    """0 to `most`. Not from `random`, which imports hashlib and takes milliseconds."""
    return int.from_bytes(os.urandom(8)) % (most + 1)
