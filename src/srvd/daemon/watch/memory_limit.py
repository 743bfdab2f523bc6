"""Measures the memory of workers in pools with max_rss. Without such a pool there is no timer.

Reports workers over the limit to the core at every check; the core decides about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from srvd.core.events import Event, WorkerOutgrew
from srvd.core.model import Phase
from srvd.core.state.model import SupervisorState
from srvd.daemon.loop import Loop, Timer
from srvd.ids import WorkerId

__all__ = ["MemoryLimitMonitor"]

LOOK = 5.0
"""Seconds from one check to the next. A check reads one file for each worker, 2 µs."""


class MemoryLimitMonitor:
    """`rss`: returns a worker's resident size in bytes, 0 if unreadable."""

    def __init__(self, state: SupervisorState, rss: Callable[[WorkerId], int], emit: Callable[[Event], None]) -> None:
        self._state = state
        self._rss = rss
        self._emit = emit
        self._loop: Loop | None = None
        self._timer: Timer | None = None

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.renew()

    def renew(self) -> None:
        """Start or stop the timer by the limits in force now."""
        limited = any(self._limits())
        if limited and self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(LOOK, self._look)
        elif not limited and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        sizes = [(worker, self._rss(worker), limit) for limit, workers in self._limits() for worker in workers]
        for worker, rss, limit in sizes:
            if rss > limit:
                self._emit(WorkerOutgrew(worker, rss, limit))
        self.renew()

    def _limits(self) -> Iterator[tuple[int, list[WorkerId]]]:
        """Yield the limits in force, in bytes, each with the serving workers of its pool."""
        for pool in self._state.pools.values():
            source = pool.source
            if source is not None and source.spec.max_rss:
                yield source.spec.max_rss, [w.id for w in source.workers.values() if w.phase is Phase.SERVING]
