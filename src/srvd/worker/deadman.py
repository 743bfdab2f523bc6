"""What a worker does when nobody is left who could end it, daemon nor zygote: as long as its loop turns it lives on.

Ends nobody: the kernel does (`linux/processes/deadman.py`), if the time is not moved on in time.
"""

from __future__ import annotations

from srvd.linux.processes.deadman import SECONDS, tighten
from srvd.worker.loop import NEVER, Loop

__all__ = ["Lifeline"]

_PAUSE = SECONDS / 4
"""Seconds between two looks, each one system call; only by who is alone."""


class Lifeline:
    """Costs nothing before its end."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.deadline = NEVER
        self._loop = loop
        self._fd = fd
        self._is_cut = False
        loop.watch(self)
        loop.add(fd, 0, self._cut)  # a hang-up is told without being asked for: epoll_ctl(2), EPOLLHUP

    def expire(self, now: float) -> None:
        """The loop turns: go on living."""
        tighten()
        self.deadline = now + _PAUSE
        self._loop.due_at(self.deadline)

    def held(self) -> None:
        """Somebody has come who looks after this worker."""
        if self._is_cut:
            tighten(0)
            self.deadline = NEVER

    def lost(self, now: float) -> None:
        """And has gone."""
        if self._is_cut:
            self.expire(now)

    def _cut(self, mask: int, now: float) -> None:
        self._loop.remove(self._fd)
        self._is_cut = True
        self.expire(now)
