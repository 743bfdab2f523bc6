"""Tells the daemon, once, that a worker has reached its most requests or its age. The worker serves on until the daemon
orders it to leave.

Does not end the worker: the daemon first starts a replacement, which must serve before.
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
"""Seconds until the next attempt to tell the daemon if the link was full."""


class Recycling:
    """Counts requests, and watches the age. `say` sends the reason to the daemon; False: it cannot now."""

    def __init__(self, settings: PoolSettings, loop: Loop, say: Callable[[str], bool]) -> None:
        self._loop = loop
        self._say = say
        self._most = settings.max_requests and settings.max_requests + _at_random(settings.max_requests_jitter)
        self._age = settings.max_age
        self._served = count(1)  # next() on it is atomic, however many threads call it
        self._reason = ""
        self.deadline = NEVER
        loop.watch(self)

    def __repr__(self) -> str:
        return f"<Recycling at {self._most or 'any number of'} requests, {self._age or 'any number of'} s>"

    @property
    def counts(self) -> bool:
        """Tells whether `served` must be called."""
        return self._most > 0

    def begin(self, now: float) -> None:
        """Starts the age of the worker, when it begins to accept."""
        if self._age:
            self.deadline = now + self._age
            self._loop.due_at(self.deadline)

    def served(self, now: float) -> None:
        """Counts one more answered request."""
        if next(self._served) == self._most:
            self._tell(f"served {self._most} requests", now)

    def expire(self, now: float) -> None:
        """Tells the daemon that the age is reached, or what it could not be told before."""
        self.deadline = NEVER
        self._tell(self._reason or f"served for {self._age:g} s", now)

    def _tell(self, reason: str, now: float) -> None:
        self._reason = reason
        self.deadline = NEVER if self._say(reason) else now + _AGAIN
        self._loop.due_at(self.deadline)


def _at_random(most: int) -> int:
    """Returns a number from 0 to `most`. Does not use `random`, which imports hashlib and takes milliseconds."""
    return int.from_bytes(os.urandom(8)) % (most + 1)
