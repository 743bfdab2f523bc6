"""The zygotes that run: starts, stops and kills them, and tells the core what each of them says and how it ends.

Chooses nothing. What a zygote says about workers goes on to `workers.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
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
from srvd.core.model import Fault
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.outlets import Voice
from srvd.daemon.children.output import Output, Read
from srvd.daemon.children.process import Process
from srvd.daemon.children.spawn import NO_FRONTS, Fronts, Named, Shared, interpreter, keyless, start_zygote
from srvd.daemon.children.stack_file import Trace
from srvd.daemon.children.workers import Workers
from srvd.daemon.family.callers import Orphan
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Timer
from srvd.errors import EXIT, LoadFailed
from srvd.ids import GenerationId, WorkerId
from srvd.linux import process
from srvd.linux.interpreter import REFUSED
from srvd.linux.process import Ended
from srvd.linux.scoreboard import lanes_of
from srvd.record import Record
from srvd.wire import links

__all__ = ["ZygoteState", "Zygotes"]

LINK_PAUSE = 0.3
"""Seconds between the end of a zygote's link and the kill: it leaves by itself if it can."""

_SHORTAGE = ("Too many open files", "Cannot allocate", "MemoryError", "unavailable", "File too large", "new thread")
"""In the last line of a process that was short of something."""

KILL_PATIENCE = 1.0
"""Seconds that a zygote has to write its stacks before it is killed."""


class Zygote:
    """One zygote. `told`: it has said how loading went, or was told to end. `forks`: it has loaded. `dismissed`: it was
    told to leave, or will be when it comes. `killed`: it is, as soon as it has told its stacks.
    """

    __slots__ = ("dismissed", "forks", "id", "killed", "pool", "process", "timer", "told", "trace")

    def __init__(self, generation: GenerationId, pool: PoolSettings, started: Process) -> None:
        self.id = generation
        self.pool = pool
        self.process = started
        self.timer: Timer | None = None
        self.trace: Trace | None = None  # its last stacks
        self.told = False
        self.forks = False
        self.dismissed = False
        self.killed = False


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


class Zygotes:
    """Owns the zygotes; each started one is answered by exactly one `ZygoteGone`, the last event about it."""

    def __init__(self, voice: Voice, commons: Commons, workers: Workers, bond: FamilyLock | None = None) -> None:
        self._voice = voice
        self._commons = commons
        self._bond = bond
        self._workers = workers
        self._zygotes: dict[GenerationId, Zygote] = {}

    def start(
        self,
        generation: GenerationId,
        pool: PoolSettings,
        listeners: Named,
        fronts: Fronts = NO_FRONTS,
        folder: str = "",
    ) -> None:
        """Start one; answered by `ZygoteLoaded` or `ZygoteFailed`, perhaps before this returns.

        `folder`: where a pool without `chdir` is loaded, entered by its name each time.
        """
        line = partial(self._voice.line, generation)
        if names := keyless(listeners, fronts):
            reason = (
                f"start {generation}: the keys of {', '.join(names)} went with the former daemon; nothing was loaded"
            )
            self._never_started(generation, reason, "`srvctl reload` reads them")
            return
        if folder and not pool.chdir:
            try:
                os.chdir(folder)  # the zygote inherits it, whether or not the pool's user could go there
            except OSError as exc:
                reason = f"enter {folder}, where srvd was started: {exc.strerror}; nothing was loaded"
                self._never_started(generation, reason, "make the folder again, or set `chdir` to where the code is")
                return
        try:
            common = self._commons.open(generation, lanes_of(pool.threads))
            shared = Shared(common.board.fd, self._commons.bell, common.hold)
            started = start_zygote(generation, pool, shared, listeners, line, fronts, self._bond)
        except OSError as exc:
            reason = f"start {interpreter(pool)} for {generation}: {exc.strerror}; nothing was loaded"
            hint = "correct `python`" if isinstance(exc, (FileNotFoundError, PermissionError)) else ""
            self.let_go()
            self._never_started(generation, reason, _missing() or hint)
            return
        except LoadFailed as failed:
            self.let_go()
            self._never_started(generation, failed.message, failed.hint)
            return
        zygote = self._zygotes[generation] = Zygote(generation, pool, started)
        self._watch(zygote)

    def _never_started(self, generation: GenerationId, reason: str, hint: str) -> None:
        self._voice.emit(ZygoteFailed(generation, _fault(generation, reason, hint)))
        self._voice.emit(ZygoteGone(generation, "never started"))

    def let_go(self) -> None:
        """Of what those have in common who are all gone."""
        self._commons.keep(self._zygotes.keys() | self._workers.generations())

    def _watch(self, zygote: Zygote) -> None:
        loop, started = self._voice.loop, zygote.process
        if started.link is not None:
            loop.add_reader(started.link.fileno(), self._hear, zygote)
        loop.add_reader(started.pidfd, self._over, zygote)
        started.watch_output(loop)

    def process(self, generation: GenerationId) -> Process | None:
        """The zygote's process, if it forks. One that still loads must not be told anything: it would be killed."""
        zygote = self._zygotes.get(generation)
        return zygote.process if zygote is not None and zygote.forks and zygote.process.link is not None else None

    def pids(self) -> dict[int, GenerationId]:
        return {zygote.process.pid: generation for generation, zygote in self._zygotes.items()}

    def teach(self, generation: GenerationId, modules: Iterable[str]) -> None:
        """Have it import these; answered by `ZygoteLearned`, unless it does not listen, which its deadline tells."""
        found = self.process(generation)
        if found is not None:
            found.say(links.Learn(list(modules)))

    def stop(self, generation: GenerationId) -> None:
        """Tell it to leave. One that still loads is killed by that: it asked the kernel for it."""
        zygote = self._zygotes.get(generation)
        if zygote is not None:
            zygote.told = zygote.dismissed = True
            _dismiss(zygote)
            zygote.process.close_link(self._voice.loop)

    def kill(self, generation: GenerationId, *, dump: bool) -> None:
        """SIGKILL to it and to what it started; its workers have left its group. With `dump`, its stacks first."""
        zygote = self._zygotes.get(generation)
        if zygote is None:
            return
        zygote.told = zygote.killed = True
        if dump:
            zygote.process.stacks.take(self._voice.loop, KILL_PATIENCE, partial(self._log_and_kill, zygote))
        else:
            zygote.process.kill()

    def ask_stacks(self, generation: GenerationId, seconds: float, done: Callable[[Trace], None]) -> bool:
        """Have its stacks told, within about `seconds`; False if it does not run."""
        zygote = self._zygotes.get(generation)
        if zygote is not None:
            zygote.process.stacks.take(self._voice.loop, seconds, done)
        return zygote is not None

    def _log_and_kill(self, zygote: Zygote, trace: Trace) -> None:
        zygote.trace = trace
        if trace.problem:
            self._voice.line(zygote.id, f"srvd: its stacks: {trace.problem}")
        for line in trace.text.splitlines():
            self._voice.line(zygote.id, line)
        zygote.process.kill()

    def check(self, generation: GenerationId) -> None:
        """A child with this zygote's pid waits to be reaped."""
        zygote = self._zygotes.get(generation)
        if zygote is not None and process.is_over(zygote.process.pidfd):
            self._over(zygote)

    def missing(self) -> list[GenerationId]:
        """Those that were adopted, and have not come."""
        return [
            one.id
            for one in self._zygotes.values()
            if one.process.link is None and not one.dismissed and one.timer is None
        ]

    def greet(self) -> None:
        """Tell all that have come, after a daemon that died, that they are adopted."""
        for zygote in self._zygotes.values():
            zygote.process.say(links.Adopted())

    def welcome(self, orphan: Orphan) -> bool:
        """One that was adopted comes late; its descriptors are ours then. False: it is not expected, or brings what it
        should not.
        """
        zygote = self._zygotes.get(GenerationId(orphan.here.pool, orphan.here.generation))
        if zygote is None or zygote.process.pid != orphan.pid or zygote.process.link is not None or zygote.timer:
            return False
        if orphan.stderr < 0:
            return False
        self._commons.hold(zygote.id, orphan.lifeline)
        output = Output(orphan.stderr, partial(self._voice.line, zygote.id))
        zygote.process.meet(self._voice.loop, orphan.link, output, orphan.stacks)
        self._voice.loop.add_reader(orphan.link.fileno(), self._hear, zygote)
        zygote.process.watch_output(self._voice.loop)
        if zygote.dismissed:  # while it was away
            _dismiss(zygote)
            zygote.process.close_link(self._voice.loop)
        else:
            zygote.process.say(links.Adopted())
        return True

    def carry(self, kept: FdTable) -> tuple[ZygoteState, ...]:
        """What another program needs to go on with them; they notice nothing."""
        return tuple(
            ZygoteState(one.id, one.process.pid, one.told, one.forks, one.timer is not None,
                    one.process.carry(f"zygote {one.id}", kept), one.dismissed, one.killed)
            for one in self._zygotes.values()
        )  # fmt: skip

    def resume(self, one: ZygoteState, pool: PoolSettings, kept: FdTable) -> None:
        """Go on with one that `carry` told of. Raises `Unsupported`, `OSError`."""
        line = partial(self._voice.line, one.id)
        found = Process.resume(f"zygote {one.id}", one.pid, kept, lambda fd: Output(fd, line, one.read))
        zygote = self._zygotes[one.id] = Zygote(one.id, pool, found)
        zygote.told, zygote.forks, zygote.dismissed = one.told, one.forks, one.dismissed
        self._watch(zygote)
        if one.killed:  # its stacks may have been waited for
            self._voice.loop.call_later(0, partial(self.kill, one.id, dump=True))
        elif one.doomed:
            zygote.timer = self._voice.loop.call_later(KILL_PATIENCE, found.kill)

    def close(self, *, dismiss: bool) -> None:
        """Let go of all of them: the daemon ends. Told to leave, or, if it ends by a bug, left for the next one."""
        for zygote in self._zygotes.values():
            _cancel(zygote)
            if dismiss:
                _dismiss(zygote)
            zygote.process.finish(self._voice.loop)
        self._zygotes.clear()

    def _hear(self, zygote: Zygote, *, last: bool = False) -> None:
        for heard in zygote.process.hear(links.FROM_ZYGOTE, last=last):
            if heard.message is None:
                self._link_ended(zygote, heard.nonsense)
                return
            self._take(zygote, heard.message)

    def _take(self, zygote: Zygote, message: links.Message) -> None:
        match message:
            case links.Loaded(preloaded, notes, _, folder):
                zygote.told = zygote.forks = True
                self._voice.emit(
                    ZygoteLoaded(zygote.id, preloaded, tuple(notes), time.strftime("%Y-%m-%d %H:%M"), folder)
                )
            case links.Learned(notes):
                self._voice.emit(ZygoteLearned(zygote.id, tuple(notes)))
            case links.Mixed(file):
                self._voice.emit(CodeMixed(zygote.id, links.clip(file)))
            case links.LoadFailed(reason, hint, traceback):
                self._fail(zygote, _fault(zygote.id, reason, hint, traceback))
            case links.Forked(serial, pid):
                self._forked(zygote, serial, pid)
            case links.ForkFailed(serial, reason):
                self._workers.refused(zygote.id, serial, reason)
            case links.Reaped(serial, exit_code, number):
                self._workers.reaped(zygote.id, serial, Ended(exit_code, number))
            case links.Stopped(serial):
                self._voice.emit(WorkerStopped(WorkerId(*zygote.id, serial)))
            case links.Continued(serial):
                self._voice.emit(WorkerContinued(WorkerId(*zygote.id, serial)))

    def _forked(self, zygote: Zygote, serial: int, pid: int) -> None:
        if process.is_over(zygote.process.pidfd):  # whose children are ours now: what was ordered is told of as lost
            return
        nonsense = self._workers.forked(zygote.id, serial, pid, zygote.process.pid)
        if nonsense:
            self._voice.line(zygote.id, f"srvd: killed: {nonsense}")
            zygote.process.kill()

    def _fail(self, zygote: Zygote, fault: Fault) -> None:
        if not zygote.told:
            zygote.told = True
            self._voice.emit(ZygoteFailed(zygote.id, fault))

    def _link_ended(self, zygote: Zygote, nonsense: str) -> None:
        """Without its link a zygote is of no use. If it ended by itself, it is over already and its exit code stays."""
        zygote.process.close_link(self._voice.loop)
        if nonsense:
            self._fail(zygote, _strange(zygote, nonsense))
        if not process.is_over(zygote.process.pidfd) and zygote.timer is None:
            zygote.timer = self._voice.loop.call_later(LINK_PAUSE, zygote.process.kill)

    def _over(self, zygote: Zygote) -> None:
        """Its end: first what it said before, then who of its workers is lost, then its end."""
        self._hear(zygote, last=True)
        del self._zygotes[zygote.id]
        _cancel(zygote)
        try:
            ended = process.reap(zygote.process.pidfd) or Ended()
        except ChildProcessError:
            ended = Ended()
        tail = zygote.process.finish(self._voice.loop)
        self._fail(zygote, _unsaid(zygote, ended, tail))
        self._workers.zygote_gone(zygote.id)
        self.let_go()
        stacks = zygote.trace.text if zygote.trace is not None else ""
        self._voice.emit(ZygoteGone(zygote.id, str(ended), links.clip(tail + stacks)))


def _dismiss(zygote: Zygote) -> None:
    """The end of its link alone would make it wait for another daemon. One that does not listen is ended."""
    if zygote.process.link is None:  # it was told before
        return
    if not zygote.process.say(links.Leave()) and not process.is_over(zygote.process.pidfd):
        zygote.process.kill()


def _cancel(zygote: Zygote) -> None:
    if zygote.timer is not None:
        zygote.timer.cancel()


def _fault(generation: GenerationId, message: str, hint: str, traceback: str = "") -> Fault:
    return Fault("load_failed", message, hint, step="load", pool=generation.pool, traceback=traceback)


def _strange(zygote: Zygote, nonsense: str) -> Fault:
    reason = f"load {zygote.pool.app}: the zygote was not understood ({nonsense})"
    hint = f"install srvd {__version__} for {interpreter(zygote.pool)}"
    return _fault(zygote.id, reason, hint, zygote.process.output.tail)


def _missing() -> str:
    """What of the system a start needs and does not name when it is not there."""
    if not os.path.exists("/proc/self"):
        return "srvd needs /proc: mount it (mount -t proc proc /proc)"
    return "" if os.path.exists(os.devnull) else f"{os.devnull} is not there: make it (mknod {os.devnull} c 1 3)"


def _unsaid(zygote: Zygote, ended: Ended, tail: str) -> Fault:
    """Why a zygote ended without a word: mostly an interpreter that cannot run srvd at all."""
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
    elif ended.exit_code == EXIT.BUG and tail.strip():  # what the application raises would have been told
        reason = f"load {zygote.pool.app}: the process ended while it was loaded: {tail.strip().splitlines()[-1]}"
        last = tail.strip().splitlines()[-1]
        short = any(word in last for word in _SHORTAGE)
        hint = "see `rlimits` of the pool, and what the system lets a process have" if short else "srvctl why has more"
    else:
        reason = f"load {zygote.pool.app}: the process ended while it was loaded ({ended})"
        hint = "something ended it without a word, os._exit or a crash of an extension"
    return _fault(zygote.id, reason, hint, tail)
