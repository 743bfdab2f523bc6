"""Finds workers that make no progress although they are in no request: frozen, or blocked by something else.

Costs an idle server nothing. While the daemon sleeps, its epoll watches the listeners, too: the first client wakes the
daemon, which then checks once a second until traffic stops. A worker is sent a `Ping` if it makes no progress while
clients wait or are connected to it. A worker that answers is idle, or full, or has slow clients, and that is no fault.
Decides nothing: the core does.

Workers in a request belong to `request_timeout.py`. A worker stopped by a signal is usually reported by its zygote;
this monitor finds those that the zygote missed. A worker under a debugger is left alone.
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
"""Seconds from the first client to the first check: a client that still waits then has found no worker ready."""

LOOK = 1.0
"""Seconds from one check to the next while clients come."""

PATIENCE = 3
"""Checks within which a worker has to answer. An answer takes milliseconds, but the machine may be overloaded. Counted
in checks, not seconds, so that time in which the daemon was stopped as well (stopped group, paused machine) does not
count."""


class _Asked(Record):
    """A `Ping` without an answer yet."""

    at: float
    looks: int = 0  # checks since then


class LivenessMonitor:
    def __init__(
        self,
        state: SupervisorState,
        workers: Workers,
        listeners: Callable[[GenerationId], Sequence[socket.socket]],
        emit: Callable[[Event], None],
        mend: Callable[[], None] = lambda: None,
    ) -> None:
        """`mend`: called when a listener had an event, perhaps because a process has shut it down."""
        self._mend = mend
        self._state = state
        self._workers = workers
        self._listeners = listeners
        self._emit = emit
        self._requests: dict[WorkerId, int] = {}  # requests that each worker had answered at the last check
        self._asked: dict[WorkerId, _Asked] = {}
        self._told: dict[WorkerId, float] = {}  # reported as silent: time of the unanswered `Ping`
        self._held: set[WorkerId] = set()  # under a debugger
        self._loop: Loop | None = None
        self._timer: Timer | None = None
        self._ears: select.epoll | None = None

    def attach(self, loop: Loop) -> None:
        self._loop = loop
        self.renew()

    def renew(self) -> None:
        """Watch the listeners of the configuration in force now."""
        if self._timer is None:
            self._sleep()

    def close(self) -> None:
        self._wake()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sleep(self) -> None:
        """Wait, without a timer, for a client at any listener of an active generation."""
        self._wake()
        if self._loop is None:
            return
        # A separate epoll: its close removes all of its entries. A listener closed while registered with the loop's
        # epoll would stay registered, since the workers have the same open file, and could not be removed any more.
        self._ears = select.epoll()
        known = set()
        for generation in self._active():
            for listener in self._listeners(generation.id):
                if listener.fileno() not in known:
                    known.add(listener.fileno())
                    # A listening socket other than a Unix one is never writable; a writable one was connected by a
                    # process.
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
        for event in news:  # not earlier: handling an event changes the workers
            self._emit(event)
        if quiet and not somebody_waits and not self._asked:
            self._sleep()
        else:
            self._again()

    def _consider(self, worker: WorkerId, now: float, waits: bool, news: list[Event]) -> int:
        """Check a serving worker. Returns how many requests it has answered. `waits`: clients wait at its listeners."""
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
        """Check a worker that has not answered, or is in a request, by its process state.

        Reading the state takes dozens of microseconds, so only few workers are checked in this way.
        """
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
        """Yield the generations whose workers accept, or will accept again."""
        for pool in self._state.pools.values():
            if pool.source is not None and not pool.removed and not pool.source.spec.developed:
                yield pool.source


def _serving(generation: Generation) -> Iterator[WorkerId]:
    """Yield the serving workers that stay, and those whose replacement is cancelled if they answer."""
    for worker in generation.workers.values():
        if worker.phase is Phase.SERVING and worker.replacement in (Replacement.NONE, Replacement.SILENT):
            yield worker.id


def _waits(listeners: Sequence[socket.socket]) -> bool:
    """Whether a client waits in a backlog."""
    poll = select.poll()
    for listener in listeners:
        poll.register(listener, select.POLLIN)
    return any(events & select.POLLIN for _, events in poll.poll(0))
