"""Finds workers that do not get on although they are in no request: frozen, or held up by something else.

Costs an idle server nothing. While the daemon sleeps it listens to the listeners, too: the first client that comes
wakes it, and it looks once a second until nothing moves and nobody waits. Whoever has clients and gets nothing done is
asked (`Ping`); who answers is idle, or full, or has slow clients, and that is no fault. Decides nothing: the core does.

A worker in a request is `request_timeout.py`'s. One that a signal has stopped is told of by its parent, mostly; what
the parent missed is seen here. One that a debugger holds is left alone: a person has it.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from srvd.core.events import Event, WorkerAnswered, WorkerHeld, WorkerSilent, WorkerStopped
from srvd.core.model import Phase, Replacement
from srvd.core.state.model import Generation, SupervisorState
from srvd.daemon.children.workers import Workers
from srvd.daemon.loop import Loop, Timer
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import procfs
from srvd.record import Record
from srvd.wire import links

__all__ = ["LivenessMonitor"]

FIRST_LOOK = 0.2
"""Seconds from the first client to the first look: whoever waits by then has found nobody ready."""

LOOK = 1.0
"""Seconds from one look to the next while clients come."""

PATIENCE = 3
"""Looks within which a worker has to answer. It takes milliseconds, but the machine may have a bad moment. Looks and
not seconds: what held up the daemon, too – the whole group stopped, a paused machine – is no silence."""


class _Asked(Record):
    """A worker from which an answer is missing."""

    at: float
    looks: int = 0  # since then


class LivenessMonitor:
    def __init__(
        self,
        house: SupervisorState,
        workers: Workers,
        listeners: Callable[[GenerationId], Sequence[socket.socket]],
        emit: Callable[[Event], None],
        mend: Callable[[], None] = lambda: None,
    ) -> None:
        """`mend`: a listener has stirred, perhaps because a process has shut it down."""
        self._mend = mend
        self._house = house
        self._workers = workers
        self._listeners = listeners
        self._emit = emit
        self._requests: dict[WorkerId, int] = {}  # that each had answered at the last look
        self._asked: dict[WorkerId, _Asked] = {}
        self._told: dict[WorkerId, float] = {}  # silent since the question at that time
        self._held: set[WorkerId] = set()  # by a debugger
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
                    # One that listens is never writable, unless it is a Unix socket: a process has connected it.
                    unix = listener.family == socket.AF_UNIX
                    self._ears.register(listener, select.EPOLLIN if unix else select.EPOLLIN | select.EPOLLOUT)
        self._loop.add_reader(self._ears.fileno(), self._came)

    def _wake(self) -> None:
        if self._ears is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._ears.fileno())
            self._ears.close()
            self._ears = None

    def _came(self) -> None:
        self._wake()
        self._mend()
        self._requests = {
            worker: self._workers.tally(worker)[0] for generation in self._active() for worker in _serving(generation)
        }
        self._again(FIRST_LOOK)

    def _again(self, seconds: float = LOOK) -> None:
        assert self._loop is not None
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        self._mend()
        now = time.monotonic()
        somebody_waits = False
        serving: dict[WorkerId, int] = {}
        news: list[Event] = []
        for generation in self._active():
            waits = _waits(self._listeners(generation.id))
            somebody_waits |= waits
            for worker in _serving(generation):
                serving[worker] = self._consider(worker, now, waits, news)
        quiet = self._requests == serving
        self._requests = serving
        self._asked = {worker: asked for worker, asked in self._asked.items() if worker in serving}
        self._told = {worker: asked for worker, asked in self._told.items() if worker in serving}
        self._held &= serving.keys()
        for event in news:  # not before: the workers change with it
            self._emit(event)
        if quiet and not somebody_waits and not self._asked:
            self._sleep()
        else:
            self._again()

    def _consider(self, worker: WorkerId, now: float, waits: bool, news: list[Event]) -> int:
        """One that serves; `waits`: somebody does at its listeners. How many requests it has answered."""
        requests, busy = self._workers.tally(worker)
        asked = self._asked.get(worker)
        if self._told.get(worker, now) < self._workers.heard(worker):
            del self._told[worker]
            news.append(WorkerAnswered(worker))
        gets_on = requests != self._requests.get(worker)
        if gets_on or not (waits or self._workers.facts(worker).connections):
            self._asked.pop(worker, None)
        elif asked is not None and self._workers.heard(worker) >= asked.at:
            del self._asked[worker]
        elif asked is None and not busy:
            self._ask(worker, now)
        else:
            self._doubt(worker, now, news, busy=bool(busy))
        return requests

    def _ask(self, worker: WorkerId, now: float) -> None:
        self._asked[worker] = _Asked(now)
        self._workers.tell(worker, links.Ping())

    def _doubt(self, worker: WorkerId, now: float, news: list[Event], *, busy: bool) -> None:
        """It has not answered, or is in a request. The kernel is asked of few: that takes dozens of microseconds."""
        state, asked = self._workers.state(worker), self._asked.get(worker)
        if state == procfs.TRACED:
            if worker not in self._held:
                self._held.add(worker)
                news.append(WorkerHeld(worker))
            if asked is not None:
                self._asked[worker] = asked._replace(looks=0)
            return
        self._held.discard(worker)
        if state == procfs.STOPPED:
            news.append(WorkerStopped(worker))
        elif busy:
            self._asked.pop(worker, None)
            return
        if asked is None:
            self._ask(worker, now)
            return
        asked = self._asked[worker] = asked._replace(looks=asked.looks + 1)
        if asked.looks >= PATIENCE and worker not in self._told:
            self._told[worker] = asked.at
            news.append(WorkerSilent(worker, now - asked.at, state == procfs.STOPPED))

    def _active(self) -> Iterator[Generation]:
        """Those whose workers accept, or will again."""
        for pool in self._house.pools.values():
            if pool.source is not None and not pool.removed:
                yield pool.source


def _serving(generation: Generation) -> Iterator[WorkerId]:
    """Those that shall stay, or that may be pardoned."""
    for worker in generation.workers.values():
        if worker.phase is Phase.SERVING and worker.replacement in (Replacement.NONE, Replacement.SILENT):
            yield worker.id


def _waits(listeners: Sequence[socket.socket]) -> bool:
    """Does a client wait to be accepted?"""
    poll = select.poll()
    for listener in listeners:
        poll.register(listener, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))
