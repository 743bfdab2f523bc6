"""Those of an adopted family who had not called when their daemon went on, and those who were sent away.

Decides nothing about workers: who comes late is made known to whoever performs, and to the core how it is. The
rendezvous stays open as long as the daemon lives, and costs nothing: nobody calls who has a daemon.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from srvd.core.actions import KillZygote
from srvd.core.events import Event, WorkerReport, WorkerSaid
from srvd.core.model import Phase
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.performer import Performer
from srvd.daemon.family.callers import Calls, Orphan
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop, Timer
from srvd.daemon.recovery.rejects import Reject, send_away
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import process

__all__ = ["LateCallers"]

ZYGOTES = 5.0
"""Seconds within which a zygote has to call: it has nothing else to do, so it is stuck, or stopped."""

STRAYS = 40.0
"""Seconds that those have who were sent away: to finish their requests, and some more."""


PAUSE = 1.0
"""Seconds until the next look when descriptors were short."""


class LateCallers:
    """Owns the rendezvous of a daemon that has adopted, and what is left of those it did not."""

    def __init__(
        self,
        calls: Calls,
        performer: Performer,
        house: SupervisorState,
        emit: Callable[[Event], None],
        strays: Sequence[Reject],
    ) -> None:
        self._calls = calls
        self._performer = performer
        self._house = house
        self._emit = emit
        self._strays: dict[int, Reject] = {}  # by pid
        self._sent_away = strays  # before there was a loop
        self._loop: Loop | None = None
        self._pause: Timer | None = None

    def attach(self, loop: Loop) -> None:
        """Hear them from now on."""
        self._loop = loop
        self._listen(loop)
        if any(isinstance(one, GenerationId) for one in self._performer.missing()):
            loop.call_later(ZYGOTES, self._give_up)
        self._add(self._sent_away)

    def carry(self, kept: FdTable) -> tuple[int, ...]:
        """Pids of those who were sent away and may still live; their descriptors go to `kept`."""
        for stray in self._strays.values():
            kept.give(f"stray {stray.pid}", stray.pidfd)
        return tuple(self._strays)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        elif self._loop is not None:
            self._loop.remove_reader(self._calls.fileno())
        self._calls.close()
        for stray in self._strays.values():
            os.close(stray.pidfd)
        self._strays.clear()

    def _add(self, strays: Sequence[Reject]) -> None:
        """Each of them has its own time."""
        fresh = []
        for stray in strays:
            known = self._strays.get(stray.pid)
            if known is not None and not process.is_over(known.pidfd):
                os.close(stray.pidfd)  # it called, and its zygote named it
                continue
            if known is not None:  # and its pid is another's now
                os.close(known.pidfd)
            self._strays[stray.pid] = stray
            fresh.append(stray)
        if fresh and self._loop is not None:
            self._loop.call_later(STRAYS, self._end, fresh)

    def _listen(self, loop: Loop) -> None:
        self._pause = None
        loop.add_reader(self._calls.fileno(), self._hear)

    def _heard(self) -> list[Orphan]:
        """Who has said who it is. If descriptors are short, later: who waits would wake the loop again and again."""
        try:
            return self._calls.hear()
        except OSError:
            if self._loop is not None:
                self._loop.remove_reader(self._calls.fileno())
                self._pause = self._loop.call_later(PAUSE, self._listen, self._loop)
            return []

    def _hear(self) -> None:
        for orphan in self._heard():
            if self._performer.welcome(orphan):
                if isinstance(orphan.id, WorkerId):
                    self._tell(orphan.id, draining=orphan.here.draining)
                continue
            self._add(send_away(orphan))

    def _tell(self, worker: WorkerId, *, draining: bool) -> None:
        """How it is, where the core may take it for something else."""
        pool = self._house.pools.get(worker.pool)
        generation = pool.generations.get(worker.generation) if pool is not None else None
        known = generation.workers.get(worker.serial) if generation is not None else None
        if known is None:
            return
        if draining:
            self._emit(WorkerSaid(worker, WorkerReport.LEAVING))
        elif known.phase is Phase.OPENING:
            self._emit(WorkerSaid(worker, WorkerReport.SERVING))

    def _give_up(self) -> None:
        for one in self._performer.missing():
            if isinstance(one, GenerationId):
                self._performer.perform(KillZygote(one))

    def _end(self, strays: Sequence[Reject]) -> None:
        """Their time is over."""
        for stray in strays:
            if self._strays.get(stray.pid) == stray:
                del self._strays[stray.pid]
                process.send_group_signal(stray.pidfd, stray.pid, signal.SIGKILL)
                process.send_signal(stray.pidfd, signal.SIGKILL)
                os.close(stray.pidfd)
