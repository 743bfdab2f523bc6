"""Finds requests for which the application has produced nothing within their pool's request_timeout.

The scoreboard records when the application last produced something for a request, or was called for it. Before the
daemon sleeps, it marks the bell as unwatched; the worker that begins the next request sees the mark and wakes the
daemon (`WatchBell`). Workers do not wake a daemon that watches: its timer runs until the next request can be due, and
at most a few seconds while a request runs. A check that comes late shows that everything may have stood still (group
stopped, container paused); that time is not counted against requests. An idle server has no timer. A worker under a
debugger is left alone. Decides nothing: the core does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from srvd.core.events import Event, RequestOverdue
from srvd.core.model import ExitReason, Phase
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import SupervisorState
from srvd.daemon.loop import Loop, Timer
from srvd.ids import WorkerId
from srvd.linux.processes import procfs
from srvd.linux.scoreboard import Bell, LaneFacts

_LONGEST = 5.0
"""Seconds from one check to the next while any request runs, at most."""

_LATE = 1.0
"""Seconds by which a check may come late on a busy machine. A later one counts as a pause."""

_PAUSES = 16  # the most pauses remembered

_HELD = 1.0
"""Seconds until the next check of a worker under a debugger."""

_REPLACED = 0.5
"""Seconds until the next check of a reported worker. With one thread it is reported again, and ended, once its
replacement serves."""


class RequestTimeoutMonitor:
    def __init__(
        self,
        state: SupervisorState,
        bell: Bell,
        facts: Callable[[WorkerId], LaneFacts],
        process_state: Callable[[WorkerId], str],
        emit: Callable[[Event], None],
    ) -> None:
        """`process_state`: returns the state of a worker's process, one of the constants of `procfs`."""
        self._state = state
        self._bell = bell
        self._facts = facts
        self._process_state = process_state
        self._emit = emit
        self._looked = self._due = NEVER  # time of the last check, and of the next one
        self._pauses: deque[tuple[float, float]] = deque(maxlen=_PAUSES)  # end and length of each
        self._told: dict[WorkerId, float] = {}  # reported workers: since when the application had produced nothing
        self._timer: Timer | None = None
        self._loop: Loop | None = None

    def save(self) -> dict[WorkerId, float]:
        """Return the reported workers, with the time since when the application had produced nothing."""
        return dict(self._told)

    def restore(self, told: Mapping[WorkerId, float]) -> None:
        """Restore what `save` returned."""
        self._told = dict(told)

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.look()

    def bell_rang(self) -> None:
        """Check after a worker has begun a request while the daemon did not watch."""
        if not self._bell.watching:
            self.look(rung=True)

    def look(self, *, rung: bool = False) -> None:
        """Report each request that has become overdue, and set the timer for the next check if any request runs."""
        self._bell.watching = True
        self._mind_pause(time.monotonic())
        due = self._tell_and_next()
        if rung:
            # The request may be over already. If the bell became unwatched at once, each request would wake the daemon.
            due = min(due, time.monotonic() + self._shortest_limit())
        elif due == NEVER:
            # Unwatched first, then one more check: a request that began in between has seen "watched" and not rung.
            self._bell.watching = False
            due = self._tell_and_next()
            self._bell.watching = due != NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._looked, self._due = time.monotonic(), due
        if due != NEVER and self._loop is not None:
            self._timer = self._loop.call_at(due, self.look)

    def _mind_pause(self, now: float) -> None:
        """Remember a pause if this check comes late. Its begin is unknown: the last check is the earliest possible."""
        if now - self._due > _LATE:
            self._pauses.append((now, now - self._looked))

    def _stood(self, began: float) -> float:
        """Return how many seconds since `began` may have been pauses."""
        return sum(min(length, ended - began) for ended, length in self._pauses if began < ended)

    def _shortest_limit(self) -> float:
        limits = (g.spec.request_timeout for pool in self._state.pools.values() for g in pool.generations.values())
        return min((limit for limit in limits if limit > 0), default=NEVER)

    def _tell_and_next(self) -> float:
        """Report overdue requests. Returns when to check again: NEVER if no request with a limit runs."""
        now = time.monotonic()
        due = NEVER
        late: list[RequestOverdue] = []
        for worker, limit, replaced in self._limited():
            facts = self._facts(worker)
            if not facts.busy:
                continue
            if self._told.get(worker) == facts.gave and not replaced:
                due = min(due, now + _REPLACED)
                continue
            over = facts.gave + limit + self._stood(facts.gave)
            if now < over:
                due = min(due, over, now + _LONGEST)
            elif self._process_state(worker) == procfs.TRACED:
                due = min(due, now + _HELD)
            else:
                self._told[worker] = facts.gave
                late.append(RequestOverdue(worker, facts.quiet, now - facts.gave))
        self._told = {worker: began for worker, began in self._told.items() if self._lives(worker)}
        for event in late:
            self._emit(event)
        # A worker that begins a request from now on does not ring, and its limit may be shorter than those of the rest.
        return due if due == NEVER else min(due, now + self._shortest_limit())

    def _limited(self) -> Iterator[tuple[WorkerId, float, bool]]:
        """Yield the workers that may be in a request, the limit in seconds, and whether an overdue request is all that
        the worker still has: its replacement serves, and it has one thread.
        """
        for pool in self._state.pools.values():
            for generation in pool.generations.values():
                if generation.spec.request_timeout > 0:
                    for worker in generation.workers.values():
                        if worker.phase in (Phase.SERVING, Phase.DRAINING):
                            spec = generation.spec
                            replaced = worker.phase is Phase.DRAINING and worker.exit_reason is ExitReason.OVERDUE
                            yield worker.id, spec.request_timeout, replaced and spec.threads == 1

    def _lives(self, worker: WorkerId) -> bool:
        pool = self._state.pools.get(worker.pool)
        generation = pool.generations.get(worker.generation) if pool is not None else None
        return generation is not None and worker.serial in generation.workers
