"""Finds requests that were given nothing for their pool's request_timeout, without a timer while nothing runs.

The scoreboard says when the application gave something for each, or was called for it. Before the daemon goes to sleep
it marks the boards as unwatched; the worker that begins the next request sees the mark and rings (`WatchBell`). While
they are watched nobody rings, so the daemon looks again when the next request can be due, and while one runs every few
seconds: a look that comes too late tells that everything may have stood still – the group was stopped, the container
paused – and that time is no request's fault. An idle server is never woken. A worker that a debugger holds is left
alone. Decides nothing: the core does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from srvd.core.events import Event, RequestOverdue
from srvd.core.model import ExitReason, Phase
from srvd.core.state.model import NEVER, SupervisorState
from srvd.daemon.loop import Loop, Timer
from srvd.ids import WorkerId
from srvd.linux.processes import procfs
from srvd.linux.scoreboard import Bell, LaneFacts

_LONGEST = 5.0
"""Seconds from one look to the next while any request runs."""

_LATE = 1.0
"""Seconds by which a look may come late without a meaning: the machine is busy."""

_PAUSES = 16  # that are remembered

_HELD = 1.0
"""Seconds until another look at a worker that a debugger holds."""

_REPLACED = 0.5
"""And at one that was told of and is being replaced: with one thread it ends as soon as it is."""


class RequestTimeoutMonitor:
    def __init__(
        self,
        house: SupervisorState,
        bell: Bell,
        facts: Callable[[WorkerId], LaneFacts],
        state: Callable[[WorkerId], str],
        emit: Callable[[Event], None],
    ) -> None:
        """`state`: of a worker's process, in the words of `procfs`."""
        self._house = house
        self._bell = bell
        self._facts = facts
        self._state = state
        self._emit = emit
        self._looked = self._due = NEVER  # the last look, and when the next one should be
        self._pauses: deque[tuple[float, float]] = deque(maxlen=_PAUSES)  # when each ended, and how long it was
        self._told: dict[WorkerId, float] = {}  # since when it had given nothing
        self._timer: Timer | None = None
        self._loop: Loop | None = None

    def save(self) -> dict[WorkerId, float]:
        """Who was told of already, and since when it had given nothing."""
        return dict(self._told)

    def restore(self, told: Mapping[WorkerId, float]) -> None:
        """Go on with what `save` told."""
        self._told = dict(told)

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.look()

    def woke(self) -> None:
        """A worker has begun a request while nobody watched."""
        if not self._bell.watching:
            self.look(rung=True)

    def look(self, *, rung: bool = False) -> None:
        """Tells of each request that has become overdue and arranges the next look, if any request runs."""
        self._bell.watching = True
        self._mind_pause(time.monotonic())
        due = self._tell_and_next()
        if rung:
            # The request may be over already. Unwatched again, the next one would ring, too: a wake-up for each.
            due = min(due, time.monotonic() + self._shortest_limit())
        elif due == NEVER:
            # Unwatched first, then one more look: a request that began in between has seen "watched" and not rung.
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
        """Has everything stood still? From when on is not known: from the last look on, at most."""
        if now - self._due > _LATE:
            self._pauses.append((now, now - self._looked))

    def _stood(self, began: float) -> float:
        """Seconds of a request's time that it may not have had."""
        return sum(min(length, ended - began) for ended, length in self._pauses if began < ended)

    def _shortest_limit(self) -> float:
        limits = (g.spec.request_timeout for pool in self._house.pools.values() for g in pool.generations.values())
        return min((limit for limit in limits if limit > 0), default=NEVER)

    def _tell_and_next(self) -> float:
        """When to look again: NEVER if no request runs that has a limit."""
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
            elif self._state(worker) == procfs.TRACED:
                due = min(due, now + _HELD)
            else:
                self._told[worker] = facts.gave
                late.append(RequestOverdue(worker, facts.quiet, now - facts.gave))
        self._told = {worker: began for worker, began in self._told.items() if self._lives(worker)}
        for event in late:
            self._emit(event)
        # A request that begins from now on does not ring, and may have a shorter limit than those that run.
        return due if due == NEVER else min(due, now + self._shortest_limit())

    def _limited(self) -> Iterator[tuple[WorkerId, float, bool]]:
        """The workers that may be in a request, its limit, and whether they only wait for one that was late."""
        for pool in self._house.pools.values():
            for generation in pool.generations.values():
                if generation.spec.request_timeout > 0:
                    for worker in generation.workers.values():
                        if worker.phase in (Phase.SERVING, Phase.DRAINING):
                            spec = generation.spec
                            replaced = worker.phase is Phase.DRAINING and worker.exit_reason is ExitReason.OVERDUE
                            yield worker.id, spec.request_timeout, replaced and spec.threads == 1

    def _lives(self, worker: WorkerId) -> bool:
        pool = self._house.pools.get(worker.pool)
        generation = pool.generations.get(worker.generation) if pool is not None else None
        return generation is not None and worker.serial in generation.workers
