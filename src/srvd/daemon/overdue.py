"""Finds requests that are older than their pool's request_timeout, without a timer while nothing runs.

The scoreboard says when each request began. Before the daemon goes to sleep it marks the board as unwatched; the worker
that begins the next request sees the mark and rings (`Woke`). So an idle server is never woken, and a busy one once per
request_timeout. Decides nothing about the worker: the core does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from srvd.core.events import Event, RequestOverdue
from srvd.core.model import Phase, WorkerId
from srvd.core.state import House
from srvd.linux.scoreboard import Board, LaneFacts


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer: ...


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

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.look()

    def woke(self) -> None:
        """A worker has begun a request while nobody watched."""
        if not self._board.watching:
            self.look()

    def look(self) -> None:
        """Tells of each request that has become overdue and arranges the next look, if any request runs."""
        self._board.watching = True
        due = self._tell_and_next()
        if due is None:
            # Unwatched first, then one more look: a request that began in between has seen "watched" and not rung.
            self._board.watching = False
            due = self._tell_and_next()
            self._board.watching = due is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and self._loop is not None:
            self._timer = self._loop.call_at(due, self.look)

    def _tell_and_next(self) -> float | None:
        now = time.monotonic()
        due: list[float] = []
        late: list[RequestOverdue] = []
        for pool in self._house.pools.values():
            for generation in pool.generations.values():
                limit = generation.spec.request_timeout
                if limit <= 0:
                    continue
                for worker in generation.workers.values():
                    if worker.phase not in (Phase.SERVING, Phase.DRAINING):
                        continue
                    facts = self._facts(worker.id)
                    if not facts.busy or self._told.get(worker.id) == facts.began:
                        continue
                    if now - facts.began >= limit:
                        self._told[worker.id] = facts.began
                        late.append(RequestOverdue(worker.id, facts.line, now - facts.began))
                    else:
                        due.append(facts.began + limit)
        self._told = {wid: began for wid, began in self._told.items() if wid.pool in self._house.pools
                      and self._lives(wid)}  # fmt: skip
        for event in late:
            self._emit(event)
        return min(due, default=None)

    def _lives(self, worker: WorkerId) -> bool:
        generation = self._house.pools[worker.pool].generations.get(worker.generation)
        return generation is not None and worker.serial in generation.workers
