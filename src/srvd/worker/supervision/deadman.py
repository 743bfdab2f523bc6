"""Keeps a worker alive without a daemon and a zygote, as long as its loop turns.

Ends no process: the kernel ends the worker (`linux/processes/deadman.py`) if the alarm is not set again in time.
"""

from __future__ import annotations

from srvd.linux.processes.deadman import SECONDS, tighten
from srvd.worker.loop import NEVER, Loop

__all__ = ["Deadman"]

_PAUSE = SECONDS / 4
"""Seconds between two settings of the alarm, each one system call; only in a worker without a supervisor."""


class Deadman:
    """The reading end of the lifeline, and the alarm. Costs nothing before the lifeline ends."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self.deadline = NEVER
        self._loop = loop
        self._fd = fd
        self._is_cut = False
        loop.watch(self)
        loop.add(fd, 0, self._cut)  # epoll always reports a hang-up: epoll_ctl(2), EPOLLHUP

    def expire(self, now: float) -> None:
        """Sets the alarm again, since the loop turns."""
        tighten()
        self.deadline = now + _PAUSE
        self._loop.due_at(self.deadline)

    def held(self) -> None:
        """Stops the alarm, because a daemon supervises this worker again."""
        if self._is_cut:
            tighten(0)
            self.deadline = NEVER

    def lost(self, now: float) -> None:
        """Starts the alarm again, because that daemon has gone."""
        if self._is_cut:
            self.expire(now)

    def _cut(self, mask: int, now: float) -> None:
        self._loop.remove(self._fd)
        self._is_cut = True
        self.expire(now)
