"""Starts each pool with one worker, up to the point where it would accept, then ends it: `srvd check`.

Uses the same supervisor, zygote, worker and probe as a start, in processes of its own. Opens no port and touches no
running daemon.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from srvd.config.pool_spec import spec_of
from srvd.config.settings import Config, PoolSettings
from srvd.core import actions as act
from srvd.core.events import Event, Ordered, Started, Tick, ZygoteLearned, ZygoteLoaded
from srvd.core.model import Actor, Kind, OpId, OpState, Order, Revision
from srvd.core.status import view
from srvd.core.supervisor import Supervisor
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.performer import PERFORMED, Performer
from srvd.daemon.dispatch.event_queue import EventQueue
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop, Timer
from srvd.errors import from_wire
from srvd.linux.scoreboard import Bell
from srvd.record import Record

__all__ = ["Tried", "try_start"]

FAREWELL = 5.0
"""Seconds for worker and zygote to exit after the order to leave; then they are killed."""

_REVISION = Revision(1)
_START = OpId(1)
_SLOTS = 4


class Tried(Record):
    """A pool that came up. `notes`: what loading left in the process; `warnings`: those of a successful start."""

    seconds: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def try_start(config: Config, pool: str, line: Callable[[str], None]) -> Tried:
    """Start the pool with one worker: load, boot, probe. Raises the error with which a start would end.

    line: called with each line that zygote and worker write to stderr.
    """
    loop = Loop()
    commons = Commons(Bell.create(), _SLOTS)
    try:
        return _Trial(config, config.pools[pool], loop, commons, line).run()
    finally:
        commons.close()
        loop.close()


class _Trial:
    """The check of one pool, from its start to its end."""

    def __init__(
        self, config: Config, pool: PoolSettings, loop: Loop, commons: Commons, line: Callable[[str], None]
    ) -> None:
        self._config = config
        self._pool = pool
        self._loop = loop
        self._core = Supervisor()
        self._events = EventQueue()
        self._performer = Performer(
            loop, commons, Listeners(), self._events.put, lambda: None, lambda _, text: line(text)
        )
        self._performer.revisions.settle(_REVISION, config)  # no listeners are opened: workers get none
        self._timer: Timer | None = None
        self._notes: tuple[str, ...] = ()
        self._warnings: tuple[str, ...] = ()
        self._over = False  # all processes are gone

    def run(self) -> Tried:
        began = time.monotonic()
        self._events.serve(self._turn, self._arm)
        actor = Actor(os.getuid(), os.getpid(), "srvd check")
        spec = spec_of(self._pool)._replace(workers=1)
        try:
            self._events.put(Started(_REVISION, (spec,), actor))
            start = self._core.operation(_START)
            assert start is not None
            while not start.state.ended:
                self._loop.run()
            took = time.monotonic() - began
        finally:
            self._end(actor)
        if start.state is not OpState.DONE:
            fault = start.fault
            if fault is not None and "srvctl" in fault.hint:  # srvctl needs a running daemon
                fault = fault._replace(hint="")
            raise from_wire(view.fault_map(fault) or {})
        return Tried(took, self._notes, tuple(self._warnings))

    def _end(self, actor: Actor) -> None:
        """End all processes: order them to leave, kill them if they are late. Returns when all are gone."""
        self._events.put(Ordered(1, Order(Kind.STOP, timeout=FAREWELL), actor))
        late = self._loop.call_later(2 * FAREWELL, self._give_up)
        while not self._over:
            self._loop.run()
        late.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._performer.processes.close(dismiss=True)

    def _give_up(self) -> None:
        self._over = True
        self._loop.stop()

    def _turn(self, event: Event) -> None:
        if isinstance(event, ZygoteLoaded | ZygoteLearned):
            self._notes += event.notes
        for action in self._core.handle(event, time.monotonic()):
            match action:
                case act.Ended(op) if op == _START:
                    start = self._core.operation(op)
                    self._warnings = start.warnings if start is not None else ()
                    self._loop.stop()
                case act.Exit():
                    self._over = True
                    self._loop.stop()
                case act.Refused():  # the stop, if the start has failed and the processes leave already
                    continue
                case _ if isinstance(action, PERFORMED):
                    self._performer.perform(action)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._core.next_deadline()
        self._timer = None if due is None else self._loop.call_at(due, self._events.put, Tick())
