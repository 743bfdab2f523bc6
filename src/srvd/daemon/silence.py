"""Finds workers that do not get on although they are in no request: stopped by a signal, or held up by something else.

Costs an idle server nothing. While the daemon sleeps it listens to the listeners, too: the first client that comes
wakes it, and it looks once a second until nothing moves and nobody waits. Whoever has clients and gets nothing done is
asked (`Ping`); who answers is idle, or full, or has slow clients, and that is no fault. Decides nothing: the core does.
A worker in a request is `overdue.py`'s, but for one that is stopped by a signal, which no request can be.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from srvd.core.events import Event, WorkerSilent
from srvd.core.model import GenerationId, Phase, WorkerId
from srvd.core.state import Generation, House
from srvd.daemon.loop import Loop, Timer
from srvd.daemon.workers import Workers
from srvd.wire import family

__all__ = ["SilenceWatch"]

LOOK = 1.0
"""Seconds from one look to the next while clients come."""

SILENCE = 5.0
"""Seconds a worker has to answer: its loop turns in milliseconds, but the machine may have a bad moment."""


class SilenceWatch:
    def __init__(
        self,
        house: House,
        workers: Workers,
        listeners: Callable[[GenerationId], Sequence[socket.socket]],
        emit: Callable[[Event], None],
    ) -> None:
        self._house = house
        self._workers = workers
        self._listeners = listeners
        self._emit = emit
        self._requests: dict[WorkerId, int] = {}  # that each had answered at the last look
        self._asked: dict[WorkerId, float] = {}  # since when an answer is missing
        self._told: set[WorkerId] = set()
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._ears: select.epoll | None = None

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.renew()

    def renew(self) -> None:
        """Other listeners may be in force now."""
        if self._timer is None:
            self._sleep()

    def close(self) -> None:
        self._wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sleep(self) -> None:
        """Until a client comes to any listener that somebody should accept from."""
        self._wake()
        if self._loop is None:
            return
        # An epoll of our own: it ends with all that is in it. A listener that is closed while the loop's own epoll has
        # it would stay there, since the workers have it, too, and could not be taken out any more.
        self._ears = select.epoll()
        known = set()
        for generation in self._active():
            for listener in self._listeners(generation.id):
                if listener.fileno() not in known:
                    known.add(listener.fileno())
                    self._ears.register(listener, select.EPOLLIN)
        self._loop.add_reader(self._ears.fileno(), self._came)

    def _wake(self) -> None:
        if self._ears is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._ears.fileno())
            self._ears.close()
            self._ears = None

    def _came(self) -> None:
        self._wake()
        self._requests = {
            worker: self._workers.tally(worker)[0] for generation in self._active() for worker in _serving(generation)
        }
        self._again()

    def _again(self) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        somebody_waits = False
        serving: dict[WorkerId, int] = {}
        silent: list[WorkerSilent] = []
        for generation in self._active():
            waits = _waits(self._listeners(generation.id))
            somebody_waits |= waits
            for worker in _serving(generation):
                serving[worker] = self._consider(worker, now, waits, silent)
        quiet = self._requests == serving
        self._requests = serving
        self._asked = {worker: asked for worker, asked in self._asked.items() if worker in serving}
        self._told &= serving.keys()
        for event in silent:  # not before: the workers change with it
            self._emit(event)
        if quiet and not somebody_waits and not self._asked:
            self._sleep()
        else:
            self._again()

    def _consider(self, worker: WorkerId, now: float, waits: bool, silent: list[WorkerSilent]) -> int:
        """One that serves; `waits`: somebody does at its listeners. How many requests it has answered."""
        requests, busy = self._workers.tally(worker)
        asked = self._asked.get(worker)
        idle = requests == self._requests.get(worker) and (not busy or self._workers.is_stopped(worker))
        if not idle or not (waits or self._workers.facts(worker).connections):
            self._asked.pop(worker, None)
        elif asked is None:
            self._asked[worker] = now
            self._workers.tell(worker, family.Ping())
        elif self._workers.heard(worker) >= asked:
            del self._asked[worker]
        elif now - asked >= SILENCE and worker not in self._told:
            self._told.add(worker)
            silent.append(WorkerSilent(worker, now - asked, self._workers.is_stopped(worker)))
        return requests

    def _active(self) -> Iterator[Generation]:
        """Those whose workers accept, or will again."""
        for pool in self._house.pools.values():
            if pool.source is not None and not pool.removed:
                yield pool.source


def _serving(generation: Generation) -> Iterator[WorkerId]:
    for worker in generation.workers.values():
        if worker.phase is Phase.SERVING and not worker.condemned:
            yield worker.id


def _waits(listeners: Sequence[socket.socket]) -> bool:
    """Does a client wait to be accepted?"""
    poll = select.poll()
    for listener in listeners:
        poll.register(listener, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))
