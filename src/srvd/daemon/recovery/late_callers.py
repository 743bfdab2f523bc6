"""Receives members of an adopted family that call after the adoption, and ends rejected processes that do not leave.

Decides nothing about workers: passes a late caller to its table, and its condition to the core. The rendezvous
stays open as long as the daemon lives, and costs nothing: a process that has a daemon does not call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence

from srvd.core.events import Event, WorkerReport, WorkerSaid
from srvd.core.model import Phase
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.processes import Processes
from srvd.daemon.family.callers import Calls, Orphan, Users
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop, Timer
from srvd.daemon.recovery.rejects import Reject, send_away
from srvd.errors import SystemRefused
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds
from srvd.linux.processes import process

__all__ = ["LateCallers"]

ZYGOTES = 5.0
"""Seconds within which a zygote has to call. A zygote is never busy: a later one is stuck or stopped, and is killed."""

LEAVE = 40.0
"""Seconds for rejected processes to finish their requests, with a margin; then they are killed."""

PAUSE = 1.0
"""Seconds until the next try after descriptors were short."""


class LateCallers:
    """Owns the rendezvous of a daemon that has adopted, and the rejected processes; idle in any other daemon."""

    def __init__(self, loop: Loop, processes: Processes, state: SupervisorState, emit: Callable[[Event], None]) -> None:
        self._loop = loop
        self._processes = processes
        self._state = state
        self._emit = emit
        self._rejects: dict[int, Reject] = {}  # by pid
        self._calls: Calls | None = None
        self._pause: Timer | None = None

    def hear(self, calls: Calls, rejects: Sequence[Reject]) -> None:
        """Receive callers from now on. `rejects`: processes that were sent away before."""
        self._calls = calls
        self._listen(calls)
        if any(isinstance(one, GenerationId) for one in self._processes.missing()):
            self._loop.call_later(ZYGOTES, self._give_up)
        self._add(rejects)

    def restore(
        self, pids: Sequence[int], lock: FamilyLock, users: Users, table: FdTable, warn: Callable[[str], None]
    ) -> None:
        """Go on in the next program, if the former one still waited for processes. `pids`: returned by `save`."""
        rejects = [Reject(pid, table.take(f"reject {pid}")) for pid in pids]
        if not lock.rendezvous or not (rejects or self._processes.missing()):
            return
        try:
            calls = Calls(lock.rendezvous, users)
        except SystemRefused as exc:  # another process has taken the name; no reason to undo the upgrade
            warn(exc.message)
            return
        self.hear(calls, rejects)

    def save(self, table: FdTable) -> tuple[int, ...]:
        """Return the pids of rejected processes that may still live; give their descriptors to `table`."""
        for reject in self._rejects.values():
            table.give(f"reject {reject.pid}", reject.pidfd)
        return tuple(self._rejects)

    def close(self) -> None:
        """Receive no more callers. Rejected processes leave by themselves."""
        if self._calls is not None:
            if self._pause is not None:
                self._pause.cancel()
            else:
                self._loop.remove_reader(self._calls.fileno())
            self._calls.close()
            self._calls = None
        for reject in self._rejects.values():
            os.close(reject.pidfd)
        self._rejects.clear()

    def _add(self, rejects: Sequence[Reject]) -> None:
        """Add rejected processes, with a deadline for these."""
        fresh = []
        for reject in rejects:
            known = self._rejects.get(reject.pid)
            if known is not None and not process.is_over(known.pidfd):
                os.close(reject.pidfd)  # known twice: by its own call, and by its zygote's
                continue
            if known is not None:  # that process has ended; another one has its pid now
                os.close(known.pidfd)
            self._rejects[reject.pid] = reject
            fresh.append(reject)
        if fresh:
            self._loop.call_later(LEAVE, self._end, fresh)

    def _listen(self, calls: Calls) -> None:
        self._pause = None
        self._loop.add_reader(calls.fileno(), self._on_call, calls)

    def _heard(self, calls: Calls) -> list[Orphan]:
        """Return the callers that have introduced themselves. If descriptors are short, pause: waiting callers would
        wake the loop again and again.
        """
        try:
            return calls.hear()
        except OSError:
            self._loop.remove_reader(calls.fileno())
            self._pause = self._loop.call_later(PAUSE, self._listen, calls)
            return []

    def _on_call(self, calls: Calls) -> None:
        for orphan in self._heard(calls):
            if self._welcome(orphan):
                if isinstance(orphan.id, WorkerId):
                    self._tell(orphan.id, draining=orphan.call.draining)
                continue
            self._add(send_away(orphan))

    def _welcome(self, orphan: Orphan) -> bool:
        """Take in an adopted process that calls late. Returns False if no table waits for it."""
        processes, commons = self._processes, self._processes.commons
        match orphan.id:
            case WorkerId() as worker:
                generation, welcomed = worker.generation_id, processes.workers.welcome(worker, orphan)
            case GenerationId() as generation:
                welcomed = processes.zygotes.welcome(generation, orphan)
                if welcomed:
                    commons.hold(generation, orphan.lifeline)
        if welcomed:
            os.close(orphan.pidfd)
            taken = {orphan.board} if commons.of(generation).bring(orphan.board) else set()
            fds.discard(fd for fd in (orphan.bell, orphan.board, *orphan.listeners) if fd >= 0 and fd not in taken)
        return welcomed

    def _tell(self, worker: WorkerId, *, draining: bool) -> None:
        """Tell the core whether a late worker drains or serves, where the state may say something else."""
        pool = self._state.pools.get(worker.pool)
        generation = pool.generations.get(worker.generation) if pool is not None else None
        known = generation.workers.get(worker.serial) if generation is not None else None
        if known is None:
            return
        if draining:
            self._emit(WorkerSaid(worker, WorkerReport.LEAVING))
        elif known.phase is Phase.OPENING:
            self._emit(WorkerSaid(worker, WorkerReport.SERVING))

    def _give_up(self) -> None:
        for one in self._processes.missing():
            if isinstance(one, GenerationId):
                self._processes.zygotes.kill(one, dump=False)

    def _end(self, rejects: Sequence[Reject]) -> None:
        """Kill those of the rejected processes that have not left in time."""
        for reject in rejects:
            if self._rejects.get(reject.pid) == reject:
                del self._rejects[reject.pid]
                process.send_group_signal(reject.pidfd, reject.pid, signal.SIGKILL)
                process.send_signal(reject.pidfd, signal.SIGKILL)
                os.close(reject.pidfd)
