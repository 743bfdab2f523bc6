"""The zygotes that run: starts and stops them, and tells the core what each one says and how it ends.

Decides nothing. What a zygote says about workers goes on to `workers.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import partial

from srvd import __version__
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
from srvd.core.model import ErrorCode, Fault
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.launch import interpreter
from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.output import Read
from srvd.daemon.children.process import Process
from srvd.daemon.children.spawn import NO_FRONTS, Fronts, Named, Shared, keyless, start_zygote
from srvd.daemon.children.table import KILL_PATIENCE, LINK_PAUSE, Entry, Table
from srvd.daemon.children.worker import reap_own
from srvd.daemon.children.workers import Workers
from srvd.daemon.family.callers import Orphan
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.errors import EXIT, LoadFailed
from srvd.ids import GenerationId
from srvd.linux.interpreter import REFUSED
from srvd.linux.processes import process
from srvd.linux.processes.process import Ended
from srvd.linux.scoreboard import lanes_of
from srvd.record import Record
from srvd.wire import links

__all__ = ["ZygoteState", "Zygotes"]

_SHORTAGE = ("Too many open files", "Cannot allocate", "MemoryError", "unavailable", "File too large", "new thread")
"""Texts in the last line of a process that had run short of something."""


class Zygote(Entry[GenerationId]):
    """One zygote.

    told: it has said how loading went, or was told to leave. forks: it has loaded.
    dismissed: it was told to leave, or will be when it calls.
    """

    __slots__ = ("dismissed", "forks", "pool", "told")

    def __init__(self, generation: GenerationId, pool: PoolSettings, started: Process) -> None:
        super().__init__(generation, started)
        self.pool = pool
        self.told = False
        self.forks = False
        self.dismissed = False

    @property
    def is_away(self) -> bool:
        """Whether the zygote was adopted and has not called yet; one whose link has ended is killed soon."""
        return super().is_away and self.timer is None

    def save(self, fd_table: FdTable) -> ZygoteState:
        """The state for the next program; the descriptors go to `fd_table`."""
        read = self.process.save(f"zygote {self.id}", fd_table)
        return ZygoteState(
            self.id, self.process.pid, self.told, self.forks, self.timer is not None, read, self.dismissed, self.killed
        )  # fmt: skip

    @classmethod
    def restore(cls, state: ZygoteState, pool: PoolSettings, started: Process) -> Zygote:
        """The zygote that `save` described."""
        zygote = cls(state.id, pool, started)
        zygote.told, zygote.forks = state.told, state.forks
        zygote.dismissed, zygote.killed = state.dismissed, state.killed
        return zygote


class ZygoteState(Record):
    """One zygote as it is handed over. `doomed`: it is killed soon."""

    id: GenerationId
    pid: int
    told: bool
    forks: bool
    doomed: bool
    read: Read
    dismissed: bool = False
    killed: bool = False


class Zygotes(Table[GenerationId, Zygote]):
    """Owns the zygotes. Each start is followed by exactly one `ZygoteGone`, the last event of that zygote."""

    def __init__(
        self, outlets: Outlets, commons: Commons, workers: Workers, family_lock: FamilyLock | None = None
    ) -> None:
        super().__init__(outlets, links.FROM_ZYGOTE)
        self._commons = commons
        self._family_lock = family_lock
        self._workers = workers

    def start(
        self,
        generation: GenerationId,
        pool: PoolSettings,
        listeners: Named,
        fronts: Fronts = NO_FRONTS,
        folder: str = "",
    ) -> None:
        """Start a zygote; `ZygoteLoaded` or `ZygoteFailed` follows, perhaps before this returns.

        fronts: the settings and certificates of the listeners.
        folder: where a pool without `chdir` is loaded. It is entered by its name each time, so a link may have moved.
        """
        try:
            started = self._start(generation, pool, listeners, fronts, folder)
        except LoadFailed as failed:
            self.let_go()
            self._outlets.emit(ZygoteFailed(generation, _fault(generation, failed.message, failed.hint)))
            self._outlets.emit(ZygoteGone(generation, "never started"))
            return
        self._add(Zygote(generation, pool, started))

    def _start(
        self, generation: GenerationId, pool: PoolSettings, listeners: Named, fronts: Fronts, folder: str
    ) -> Process:
        """Start the process of a zygote. Raises `LoadFailed`."""
        if names := keyless(listeners, fronts):
            reason = (
                f"start {generation}: the keys of {', '.join(names)} went with the former daemon; nothing was loaded"
            )
            raise LoadFailed(reason, hint="`srvctl reload` reads them")
        if folder and not pool.chdir:
            _enter(folder)
        try:
            common = self._commons.open(generation, lanes_of(pool.threads))
            shared = Shared(common.board.fd, self._commons.bell, common.hold)
            line = partial(self._outlets.line, generation)
            return start_zygote(generation, pool, shared, listeners, line, fronts, self._family_lock)
        except OSError as exc:
            reason = f"start {interpreter(pool)} for {generation}: {exc.strerror}; nothing was loaded"
            hint = "correct `python`" if isinstance(exc, (FileNotFoundError, PermissionError)) else ""
            raise LoadFailed(reason, hint=_missing() or hint) from exc

    def let_go(self) -> None:
        """Close the scoreboards and lifelines of generations whose zygote and workers are all gone."""
        self._commons.keep(self._entries.keys() | self._workers.generations())

    def process(self, generation: GenerationId) -> Process | None:
        """The process of a zygote that forks. A message to one that still loads would kill it."""
        zygote = self.find(generation)
        return zygote.process if zygote is not None and zygote.forks and zygote.process.link is not None else None

    def teach(self, generation: GenerationId, modules: Iterable[str]) -> None:
        """Have the zygote import the modules. `ZygoteLearned` follows, or the core's deadline passes."""
        found = self.process(generation)
        if found is not None:
            found.say(links.Learn(list(modules)))

    def stop(self, generation: GenerationId) -> None:
        """Tell the zygote to leave. One that still loads is killed by the end of its link, as it asked the kernel."""
        zygote = self.find(generation)
        if zygote is not None:
            zygote.told = zygote.dismissed = True
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
        started = Process.restore(f"zygote {state.id}", state.pid, fd_table, output)
        zygote = self._restore(Zygote.restore(state, pool, started))
        if state.doomed and not state.killed:
            zygote.timer = self._outlets.loop.call_later(KILL_PATIENCE, started.kill)

    # -- one zygote -------------------------------------------------------------------------------------------

    def _take(self, zygote: Zygote, message: links.Message) -> None:
        match message:
            case links.Loaded(preloaded, notes, _, folder):
                zygote.told = zygote.forks = True
                self._outlets.emit(
                    ZygoteLoaded(zygote.id, preloaded, tuple(notes), time.strftime("%Y-%m-%d %H:%M"), folder)
                )
            case links.Learned(notes):
                self._outlets.emit(ZygoteLearned(zygote.id, tuple(notes)))
            case links.Mixed(file):
                self._outlets.emit(CodeMixed(zygote.id, links.clip(file)))
            case links.LoadFailed(reason, hint, traceback):
                self._fail(zygote, _fault(zygote.id, reason, hint, traceback))
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
            self._fail(zygote, _strange(zygote, nonsense))
        if not process.is_over(zygote.process.pidfd) and zygote.timer is None:
            zygote.timer = self._outlets.loop.call_later(LINK_PAUSE, zygote.process.kill)

    def _over(self, zygote: Zygote) -> None:
        """Tell first what the zygote has said before, then which of its workers are lost, then its end."""
        self._hear(zygote, last=True)
        self._remove(zygote)
        zygote.cancel()
        ended = reap_own(zygote.process.pidfd) or Ended()
        tail = zygote.process.finish(self._outlets.loop)
        self._fail(zygote, _unsaid(zygote, ended, tail))
        self._workers.zygote_gone(zygote.id)
        self.let_go()
        stacks = zygote.trace.text if zygote.trace is not None else ""
        self._outlets.emit(ZygoteGone(zygote.id, str(ended), links.clip(tail + stacks)))

    def _welcomed(self, zygote: Zygote, caller: Orphan) -> None:
        self._commons.hold(zygote.id, caller.lifeline)
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


def _enter(folder: str) -> None:
    """Enter the folder: the zygote inherits it, even if the pool's user may not enter it. Raises `LoadFailed`."""
    try:
        os.chdir(folder)
    except OSError as exc:
        reason = f"enter {folder}, where srvd was started: {exc.strerror}; nothing was loaded"
        raise LoadFailed(reason, hint="make the folder again, or set `chdir` to where the code is") from exc


def _fault(generation: GenerationId, message: str, hint: str, traceback: str = "") -> Fault:
    return Fault(ErrorCode.LOAD_FAILED, message, hint, step="load", pool=generation.pool, traceback=traceback)


def _strange(zygote: Zygote, nonsense: str) -> Fault:
    reason = f"load {zygote.pool.app}: the zygote was not understood ({nonsense})"
    hint = f"install srvd {__version__} for {interpreter(zygote.pool)}"
    return _fault(zygote.id, reason, hint, zygote.process.output.tail)


def _missing() -> str:
    """The hint if a part of the system is missing that a start needs; "" if all are there."""
    if not os.path.exists("/proc/self"):
        return "srvd needs /proc: mount it (mount -t proc proc /proc)"
    return "" if os.path.exists(os.devnull) else f"{os.devnull} is not there: make it (mknod {os.devnull} c 1 3)"


def _unsaid(zygote: Zygote, ended: Ended, tail: str) -> Fault:
    """The reason why a zygote ended without a message: mostly an interpreter that cannot run srvd."""
    program = interpreter(zygote.pool)
    if REFUSED in tail:
        reason = tail.partition(REFUSED)[2].strip()
        hint = f"see `python`, `rlimits` and `user` of the pool: its user must be able to run {program}"
    elif "No module named 'srvd" in tail or "No module named srvd" in tail:
        reason = f"load {zygote.pool.app} with {program}: srvd is not installed there"
        hint = f"install srvd {__version__} there, too: {program} -m pip install PATH_TO_SRVD"
    elif "nknown option" in tail and "-P" in tail:
        reason = f"load {zygote.pool.app} with {program}: it is older than Python 3.11"
        hint = "srvd needs Python 3.11 or newer for the application, too"
    elif ended.exit_code == EXIT.BUG and tail.strip():  # an exception of the application would have been reported
        reason = f"load {zygote.pool.app}: the process ended while it was loaded: {tail.strip().splitlines()[-1]}"
        last = tail.strip().splitlines()[-1]
        short = any(word in last for word in _SHORTAGE)
        hint = "see `rlimits` of the pool, and what the system lets a process have" if short else "srvctl why has more"
    else:
        reason = f"load {zygote.pool.app}: the process ended while it was loaded ({ended})"
        hint = "something ended it without a word, os._exit or a crash of an extension"
    return _fault(zygote.id, reason, hint, tail)
