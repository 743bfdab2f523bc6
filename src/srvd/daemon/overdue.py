"""Finds requests that are older than their pool's request_timeout, without a timer while nothing runs.

The scoreboard says when each request began. Before the daemon goes to sleep it marks the board as unwatched; the worker
that begins the next request sees the mark and rings (`Woke`). While the board is watched nobody rings, so the daemon
looks again when the next request can be due: once per request_timeout, the shortest of all. An idle server is never
woken. Decides nothing about the worker: the core does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from srvd.core.events import Event, RequestOverdue
from srvd.core.model import Phase, WorkerId
from srvd.core.state import NEVER, House
from srvd.daemon.loop import Loop, Timer
from srvd.linux.scoreboard import Board, LaneFacts


class OverdueWatch:
    def __init__(
        self, house: House, board: Board, facts: Callable[[WorkerId], LaneFacts], emit: Callable[[Event], None]
    ) -> None:
        self._house = house
        self._board = board
        self._facts = facts
        self._emit = emit
        self._told: dict[WorkerId, float] = {}  # began of the request that was told of
        self._timer: Timer | None = None
        self._loop: Loop | None = None

    def carry(self) -> dict[WorkerId, float]:
        """Who was told of already, and when its request began."""
        return dict(self._told)

    def resume(self, told: Mapping[WorkerId, float]) -> None:
        """Go on with what `carry` told."""
        self._told = dict(told)

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.look()

    def woke(self) -> None:
        """A worker has begun a request while nobody watched."""
        if not self._board.watching:
            self.look(rung=True)

    def look(self, *, rung: bool = False) -> None:
        """Tells of each request that has become overdue and arranges the next look, if any request runs."""
        self._board.watching = True
        due = self._tell_and_next()
        if rung:
            # The request may be over already. Unwatched again, the next one would ring, too: a wake-up for each.
            due = min(due, time.monotonic() + self._shortest_limit())
        elif due == NEVER:
            # Unwatched first, then one more look: a request that began in between has seen "watched" and not rung.
            self._board.watching = False
            due = self._tell_and_next()
            self._board.watching = due != NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due != NEVER and self._loop is not None:
            self._timer = self._loop.call_at(due, self.look)

    def _shortest_limit(self) -> float:
        limits = (g.spec.request_timeout for pool in self._house.pools.values() for g in pool.generations.values())
        return min((limit for limit in limits if limit > 0), default=NEVER)

    def _tell_and_next(self) -> float:
        """When to look again: NEVER if no request runs that has a limit."""
        now = time.monotonic()
        due = NEVER
        late: list[RequestOverdue] = []
        for worker, limit in self._limited():
            facts = self._facts(worker)
            if not facts.busy or self._told.get(worker) == facts.began:
                continue
            if now - facts.began >= limit:
                self._told[worker] = facts.began
                late.append(RequestOverdue(worker, facts.line, now - facts.began))
            else:
                due = min(due, facts.began + limit)
        self._told = {worker: began for worker, began in self._told.items() if self._lives(worker)}
        for event in late:
            self._emit(event)
        # A request that begins from now on does not ring, and may have a shorter limit than those that run.
        return due if due == NEVER else min(due, now + self._shortest_limit())

    def _limited(self) -> Iterator[tuple[WorkerId, float]]:
        """The workers that may be in a request, and its limit."""
        for pool in self._house.pools.values():
            for generation in pool.generations.values():
                if generation.spec.request_timeout > 0:
                    for worker in generation.workers.values():
                        if worker.phase in (Phase.SERVING, Phase.DRAINING):
                            yield worker.id, generation.spec.request_timeout

    def _lives(self, worker: WorkerId) -> bool:
        pool = self._house.pools.get(worker.pool)
        generation = pool.generations.get(worker.generation) if pool is not None else None
        return generation is not None and worker.serial in generation.workers
