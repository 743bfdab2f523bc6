"""The zygotes that run: starts and stops them, and tells the core what each one says and how it ends.

Decides nothing. What a zygote says about workers goes on to `workers.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from srvd.config.settings import PoolSettings
from srvd.core.events import (
    CodeMixed,
    WorkerContinued,
    WorkerStopped,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLearned,
    ZygoteLoaded,
)
from srvd.core.model import Fault
from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.process import Process
from srvd.daemon.children.starting.load_faults import load_fault, not_understood, unsaid
from srvd.daemon.children.starting.starter import ZygoteStarter
from srvd.daemon.children.table import KILL_PATIENCE, LINK_PAUSE, Table
from srvd.daemon.children.workers import Workers
from srvd.daemon.children.zygote import Zygote, ZygoteSpec, ZygoteState
from srvd.daemon.family.callers import Orphan
from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId
from srvd.linux.processes import process
from srvd.linux.processes.process import Ended
from srvd.wire import links

__all__ = ["Zygotes"]


class Zygotes(Table[GenerationId, Zygote]):
    """Owns the zygotes. Each start is followed by exactly one `ZygoteGone`, the last event of that zygote."""

    def __init__(self, outlets: Outlets, starter: ZygoteStarter, workers: Workers) -> None:
        super().__init__(outlets, links.FROM_ZYGOTE)
        self._starter = starter
        self._workers = workers

    def start(self, generation: GenerationId, spec: ZygoteSpec) -> None:
        """Start a zygote; `ZygoteLoaded` or `ZygoteFailed` follows, perhaps before this returns."""
        started = self._starter.start(generation, spec)
        if isinstance(started, Process):
            self._add(Zygote(generation, spec.pool, started))
        else:
            self._outlets.emit(ZygoteFailed(generation, started))
            self._outlets.emit(ZygoteGone(generation, "never started"))

    def generations(self) -> set[GenerationId]:
        """The generations that have a zygote."""
        return set(self._entries)

    def process(self, generation: GenerationId) -> Process | None:
        """The process of a zygote that forks. One that still loads reads no message."""
        zygote = self.find(generation)
        return zygote.process if zygote is not None and zygote.forks and zygote.process.link is not None else None

    def teach(self, generation: GenerationId, modules: Iterable[str]) -> None:
        """Have the zygote import the modules. `ZygoteLearned` follows, or the core's deadline passes."""
        zygote, found = self.find(generation), self.process(generation)
        if zygote is not None and found is not None:
            zygote.learns = True
            found.say(links.Learn(list(modules)))

    def stop(self, generation: GenerationId) -> None:
        """Tell the zygote to leave. One that loads or learns reads no message, and is killed."""
        zygote = self.find(generation)
        if zygote is not None:
            zygote.told = zygote.dismissed = True
            if zygote.learns or not zygote.forks:
                zygote.process.kill()
            else:
                self._dismiss(zygote)
            zygote.process.close_link(self._outlets.loop)

    def missing(self) -> list[GenerationId]:
        """As `Table.missing`, without those that leave as soon as they call."""
        return [zygote.id for zygote in self._entries.values() if zygote.is_away and not zygote.dismissed]

    def save(self, fd_table: FdTable) -> tuple[ZygoteState, ...]:
        """The state for the next program; the descriptors go to `fd_table`. The zygotes notice nothing."""
        return tuple(zygote.save(fd_table) for zygote in self._entries.values())

    def restore(self, state: ZygoteState, pool: PoolSettings, fd_table: FdTable) -> None:
        """Go on with a zygote that `save` described. Raises `Unsupported`, `OSError`."""
        output = partial(self._output, state.id, read=state.read)
        zygote = self._restore(Zygote.restore(state, pool, fd_table, output))
        if state.doomed and not state.killed:
            zygote.timer = self._outlets.loop.call_later(KILL_PATIENCE, zygote.process.kill)

    # -- one zygote -------------------------------------------------------------------------------------------

    def _take(self, zygote: Zygote, message: links.Message) -> None:
        match message:
            case links.Loaded(preloaded, notes, _, folder):
                zygote.told = zygote.forks = True
                self._starter.prepare_next(zygote.pool)
                self._outlets.emit(
                    ZygoteLoaded(zygote.id, preloaded, tuple(notes), time.strftime("%Y-%m-%d %H:%M"), folder)
                )
            case links.Learned(notes):
                zygote.learns = False
                self._outlets.emit(ZygoteLearned(zygote.id, tuple(notes)))
            case links.Mixed(file):
                self._outlets.emit(CodeMixed(zygote.id, links.clip(file)))
            case links.LoadFailed(reason, hint, traceback):
                self._fail(zygote, load_fault(zygote.id, reason, hint, traceback))
            case links.Forked(serial, pid):
                self._forked(zygote, serial, pid)
            case links.ForkFailed(serial, reason):
                self._workers.refused(zygote.id.worker(serial), reason)
            case links.Reaped(serial, exit_code, number):
                self._workers.reaped(zygote.id.worker(serial), Ended(exit_code, number))
            case links.Stopped(serial):
                self._outlets.emit(WorkerStopped(zygote.id.worker(serial)))
            case links.Continued(serial):
                self._outlets.emit(WorkerContinued(zygote.id.worker(serial)))

    def _forked(self, zygote: Zygote, serial: int, pid: int) -> None:
        if process.is_over(zygote.process.pidfd):  # its children are the daemon's now; ordered workers count as lost
            return
        nonsense = self._workers.forked(zygote.id.worker(serial), pid, zygote.process.pid)
        if nonsense:
            self._outlets.line(zygote.id, f"srvd: killed: {nonsense}")
            zygote.process.kill()

    def _fail(self, zygote: Zygote, fault: Fault) -> None:
        if not zygote.told and not zygote.killed:
            zygote.told = True
            self._outlets.emit(ZygoteFailed(zygote.id, fault))

    def _link_ended(self, zygote: Zygote, nonsense: str, *, last: bool) -> None:
        """A zygote without a link is of no use. One that has ended by itself is over already: its exit code stays."""
        if nonsense:
            self._fail(zygote, not_understood(zygote, nonsense))
        if not process.is_over(zygote.process.pidfd) and zygote.timer is None:
            zygote.timer = self._outlets.loop.call_later(LINK_PAUSE, zygote.process.kill)

    def _over(self, zygote: Zygote) -> None:
        """Tell first what the zygote has said before, then which of its workers are lost, then its end."""
        self._hear(zygote, last=True)
        self._remove(zygote)
        zygote.cancel()
        ended = zygote.process.reap() or Ended()
        tail = zygote.process.finish(self._outlets.loop)
        self._fail(zygote, unsaid(zygote, ended, tail))
        self._workers.zygote_gone(zygote.id)
        stacks = zygote.trace.text if zygote.trace is not None else ""
        self._outlets.emit(ZygoteGone(zygote.id, str(ended), links.clip(tail + stacks)))

    def _welcomed(self, zygote: Zygote, caller: Orphan) -> None:
        if zygote.dismissed:  # while it was away
            self._dismiss(zygote)
            zygote.process.close_link(self._outlets.loop)
        else:
            zygote.process.say(links.Adopted())

    def _dismiss(self, zygote: Zygote) -> None:
        """Without `Leave` the zygote would wait for another daemon. One that does not listen is killed."""
        if zygote.process.link is None:  # it was told before
            return
        if not zygote.process.say(links.Leave()) and not process.is_over(zygote.process.pidfd):
            zygote.process.kill()
