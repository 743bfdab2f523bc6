"""The workers that run: orders, tells and kills them, and tells the core what each of them says and how it ends.

Chooses nothing. A worker is reaped by its zygote, or, when that is gone, by the daemon: the subreaper of all.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Sequence, Set
from functools import partial

from srvd.core.events import CodeMixed, ForkRefused, WorkerForked, WorkerGone, WorkerReport, WorkerSaid, WorkerWarmed
from srvd.core.model import Pid
from srvd.daemon.children.commons import Common, Commons
from srvd.daemon.children.fork import order_fork
from srvd.daemon.children.outlets import Voice
from srvd.daemon.children.output import Output
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import PATIENCE, Trace
from srvd.daemon.children.worker import Expected, Worker, WorkerState, death_of, reap_own, told
from srvd.daemon.family.callers import Orphan
from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds, process, procfs
from srvd.linux.cgroup import OomWatch
from srvd.linux.process import Ended
from srvd.linux.scoreboard import LaneFacts, Request
from srvd.wire import links

__all__ = ["Workers"]

STATUS_PAUSE = 1.0
"""Seconds for a zygote to tell how a worker ended, after the kernel told that it has."""

KILL_PATIENCE = 1.0
"""Seconds that a worker has to write its stacks before it is killed."""

_LINK_PAUSE = 0.3  # seconds between the end of a worker's link and the kill, if it is not over by then
_LAST_SECONDS = 30.0  # for a worker's requests when the daemon itself cannot go on

_FULL = "the scoreboard has no free slot: max_workers are running"


class Workers:
    """Owns the workers; each one forked is answered by exactly one `WorkerGone`, the last event about it."""

    def __init__(self, voice: Voice, commons: Commons) -> None:
        self._voice = voice
        self._commons = commons
        self._oom = OomWatch()
        self._expected: dict[WorkerId, Expected] = {}
        self._workers: dict[WorkerId, Worker] = {}
        self._bereft: set[tuple[str, int]] = set()  # generations that have workers, and no zygote any more

    # -- orders -----------------------------------------------------------------------------------------------

    def order(self, worker: WorkerId, zygote: Process | None) -> None:
        """Have the zygote fork it; answered by `WorkerForked` or `ForkRefused`, or by the zygote's end."""
        if zygote is None:
            refusal = "no zygote of it forks"
        else:
            common = self._commons.of(worker[:2])
            refusal = self._order(worker, common, zygote) if common.free else _FULL
        if refusal:
            self._voice.emit(ForkRefused(worker, refusal))

    def _order(self, worker: WorkerId, common: Common, zygote: Process) -> str:
        """Why it cannot be; "" when the zygote was told."""
        made = order_fork(worker, common, zygote, partial(self._voice.line, worker))
        if isinstance(made, str):
            return made
        common.free.remove(made.slot)
        self._expected[worker] = made
        return ""

    def tell(self, worker: WorkerId, message: links.Message) -> None:
        """Say something on its link. One that does not listen is the core's to notice: each order has a deadline.

        One that still boots hears it when it is ready: before, it would be killed by it (`fds.kill_at_end`). The only
        order that the core has for such a worker is to reopen its log, and one of these is as good as two. So does one
        that was adopted and has not come yet; to leave is then its last order.
        """
        found = self._workers.get(worker)
        if found is None:
            return
        if found.ready and found.process.link is not None:
            found.process.say(message)
        elif not isinstance(found.held, links.Drain) and not isinstance(message, links.Ping):
            found.held = message

    def wake(self, worker: WorkerId) -> None:
        """Continue it, should somebody have stopped it: it would hear nothing. To all others this means nothing."""
        found = self._workers.get(worker)
        if found is not None and procfs.state(found.process.pid) != procfs.TRACED:  # for a debugger to decide
            found.process.signal(signal.SIGCONT)

    def kill(self, worker: WorkerId, *, dump: bool) -> None:
        """SIGKILL to it and to what it started; with `dump`, its stacks and requests go to the log first."""
        found = self._workers.get(worker)
        if found is None:
            return
        found.killed = True
        if dump:
            # Not SIGABRT, whose handler would do the same: it may leave a core file, and the application may catch it.
            found.process.stacks.take(self._voice.loop, KILL_PATIENCE, partial(self._log, found))
        else:
            found.process.kill()

    def log_stacks(self, worker: WorkerId) -> None:
        """Have its stacks and requests written to the log."""
        found = self._workers.get(worker)
        if found is not None:
            found.process.stacks.take(self._voice.loop, PATIENCE, partial(self._log, found))

    def ask_stacks(self, worker: WorkerId, seconds: float, done: Callable[[Trace], None]) -> bool:
        """Have its stacks told, within about `seconds`; False if it does not run."""
        found = self._workers.get(worker)
        if found is not None:
            found.process.stacks.take(self._voice.loop, seconds, done)
        return found is not None

    def _log(self, worker: Worker, trace: Trace) -> None:
        if trace.text or worker.trace is None:  # the second one, before the kill, may find it on its way out
            worker.trace = trace
        for line in told(self._commons.of(worker.id[:2]).board.requests(worker.slot), trace):
            self._voice.line(worker.id, line)
        if worker.killed:  # with a dump: now that there is one
            worker.process.kill()

    def greet(self) -> None:
        """Tell all that have come that they are adopted."""
        for worker in self._workers.values():
            worker.process.say(links.Adopted())

    def welcome(self, orphan: Orphan) -> bool:
        """One that was adopted comes late; its descriptors are ours then. False: it is not expected, or brings what it
        should not.
        """
        worker = self._workers.get(WorkerId(orphan.here.pool, orphan.here.generation, orphan.here.serial))
        if worker is None or worker.process.pid != orphan.pid or worker.process.link is not None or orphan.stderr < 0:
            return False
        output, loop = Output(orphan.stderr, partial(self._voice.line, worker.id)), self._voice.loop
        worker.process.meet(loop, orphan.link, output, orphan.stacks)
        loop.add_reader(orphan.link.fileno(), self._hear, worker)
        worker.process.watch_output(loop)
        worker.process.say(links.Adopted())
        if worker.held is not None:
            worker.process.say(worker.held)
            worker.held = None
        return True

    # -- what zygotes tell ------------------------------------------------------------------------------------

    def forked(self, generation: GenerationId, serial: int, pid: int, zygote: int) -> str:
        """The zygote, of this pid, has forked it; from here on it is listened to. Else why it cannot be true: what is
        no child of the zygote's may be anybody, and would be signalled.
        """
        worker_id = WorkerId(*generation, serial)
        if worker_id not in self._expected:
            return f"it tells of a worker {worker_id} that was not ordered"
        try:
            pidfd = process.open_pidfd(pid)
        except ProcessLookupError:  # over, and buried by the zygote, which is about to tell how
            pidfd = process.over()
        except (OSError, OverflowError) as exc:
            self.refused(generation, serial, f"open its pidfd: {exc}")  # it sees the end of its link and leaves
            return ""
        if procfs.parent(pid) == zygote or process.is_over(pidfd):  # in this order: what ends in between is over
            self._born(self._expected.pop(worker_id), pid, pidfd)
            return ""
        os.close(pidfd)
        return f"it tells of a worker {worker_id} with pid {pid}, which is no child of its own"

    def _born(self, expected: Expected, pid: int, pidfd: int) -> None:
        born = Process(pid, pidfd, expected.link, expected.output, expected.stacks)
        worker = self._workers[expected.id] = Worker(expected.id, expected.slot, born)
        self._watch(worker)
        self._voice.emit(WorkerForked(worker.id, Pid(pid)))

    def _watch(self, worker: Worker) -> None:
        loop, born = self._voice.loop, worker.process
        if born.link is not None:
            loop.add_reader(born.link.fileno(), self._hear, worker)
        loop.add_reader(born.pidfd, self._over, worker)
        born.watch_output(loop)

    def refused(self, generation: GenerationId, serial: int, reason: str) -> None:
        expected = self._expected.pop(WorkerId(*generation, serial), None)
        if expected is not None:
            self._release(expected)
            self._voice.emit(ForkRefused(expected.id, reason))

    def reaped(self, generation: GenerationId, serial: int, ended: Ended) -> None:
        worker = self._workers.get(WorkerId(*generation, serial))
        if worker is not None:
            self._finish(worker, ended)

    def zygote_gone(self, generation: GenerationId) -> None:
        """Forget what it will not fork any more (the core does, too), and ask the kernel about what it did not tell."""
        for expected in [e for e in self._expected.values() if e.id[:2] == generation]:
            del self._expected[expected.id]
            self._release(expected)
        known = [worker for worker in self._workers.values() if worker.id[:2] == generation]
        if known:
            self._bereft.add(generation)
        for worker in known:
            if process.is_over(worker.process.pidfd):
                self._finish(worker, reap_own(worker.process.pidfd) or Ended())

    # -- what is known ----------------------------------------------------------------------------------------

    def pids(self, *, missing: bool = False) -> dict[int, WorkerId]:
        """Of all, or of those alone that were adopted and have not come."""
        return {one.process.pid: one.id for one in self._workers.values() if not missing or one.process.link is None}

    def generations(self) -> set[GenerationId]:
        """Those of which a worker runs, or is ordered."""
        return {GenerationId(*worker[:2]) for worker in (*self._workers, *self._expected)}

    def pid(self, worker: WorkerId) -> int:
        """0 if it does not run."""
        found = self._workers.get(worker)
        return 0 if found is None else found.process.pid

    def facts(self, worker: WorkerId) -> LaneFacts:
        """What it is doing, by the scoreboard; all zero if it does not run."""
        found = self._workers.get(worker)
        return LaneFacts() if found is None else self._commons.of(found.id[:2]).board.read(found.slot)

    def requests(self, worker: WorkerId) -> list[Request]:
        """Those that it is in, the oldest first."""
        found = self._workers.get(worker)
        return [] if found is None else self._commons.of(found.id[:2]).board.requests(found.slot)

    def tally(self, worker: WorkerId) -> tuple[int, int]:
        """Requests it has answered, and how many it is in."""
        found = self._workers.get(worker)
        return (0, 0) if found is None else self._commons.of(found.id[:2]).board.tally(found.slot)

    def heard(self, worker: WorkerId) -> float:
        """When it last answered a `Ping`, in monotonic seconds; 0.0: never."""
        found = self._workers.get(worker)
        return 0.0 if found is None else found.heard

    def state(self, worker: WorkerId) -> str:
        """What the kernel says of it, in the words of `procfs`; "" if it does not run."""
        found = self._workers.get(worker)
        return "" if found is None else procfs.state(found.process.pid)

    def rss(self, worker: WorkerId) -> int:
        """Its resident bytes; 0 when they cannot be read."""
        found = self._workers.get(worker)
        return 0 if found is None else found.process.rss()

    def check(self, worker: WorkerId) -> None:
        """A child with this worker's pid waits to be reaped."""
        found = self._workers.get(worker)
        if found is not None and process.is_over(found.process.pidfd):
            self._over(found)

    def carry(self, kept: FdTable) -> tuple[WorkerState, ...]:
        """What another program needs to go on with them; they notice nothing."""
        carried = []
        for expected in self._expected.values():
            kept.give(f"worker {expected.id} link", expected.link.fileno())
            kept.give(f"worker {expected.id} stderr", expected.output.fd)
            kept.give(f"worker {expected.id} stacks", expected.stacks)
            carried.append(WorkerState(expected.id, expected.slot))
        return (*carried, *(worker.carry(kept) for worker in self._workers.values()))

    def resume(self, carried: Sequence[WorkerState], zygotes: Set[tuple[str, int]], kept: FdTable) -> None:
        """Go on with what `carry` told; `zygotes` are those there are. Raises `Unsupported`, `OSError`."""
        self._bereft = {one.id[:2] for one in carried} - zygotes
        for one in carried:
            self._commons.of(one.id[:2]).free.remove(one.slot)
            if one.pid:
                self._resume_one(one, kept)
                continue
            link = socket.socket(fileno=kept.take(f"worker {one.id} link"))
            output = self._output(one, kept.take(f"worker {one.id} stderr"))
            stacks = kept.take(f"worker {one.id} stacks")
            self._expected[one.id] = Expected(one.id, one.slot, link, output, stacks)

    def _resume_one(self, one: WorkerState, kept: FdTable) -> None:
        born = Process.resume(f"worker {one.id}", one.pid, kept, partial(self._output, one))
        worker = self._workers[one.id] = Worker.resume(one, born)
        self._watch(worker)
        if worker.killed:  # its stacks may have been waited for
            self._voice.loop.call_later(0, partial(self.kill, one.id, dump=True))

    def _output(self, one: WorkerState, fd: int) -> Output:
        return Output(fd, partial(self._voice.line, one.id), one.read)

    def close(self, *, dismiss: bool) -> None:
        """Let go of all of them: the daemon ends. Told to leave, or, if it ends by a bug, left for the next one.

        One that still boots is killed by either: it asked the kernel for it.
        """
        for expected in self._expected.values():
            self._release(expected)
        for worker in self._workers.values():
            worker.cancel()
            if dismiss:
                worker.process.say(links.Drain(_LAST_SECONDS, leaving=True, left_over=[]))
            worker.process.finish(self._voice.loop)
        self._expected.clear()
        self._workers.clear()

    # -- what they do -----------------------------------------------------------------------------------------

    def _hear(self, worker: Worker, *, last: bool = False) -> None:
        for heard in worker.process.hear(links.FROM_WORKER, last=last):
            if heard.message is None:
                worker.process.close_link(self._voice.loop)
                if heard.nonsense:
                    self._strike(worker, heard.nonsense)
                elif not last and not worker.leaves:  # a process that ends closes its link a moment before
                    worker.timer = self._voice.loop.call_later(_LINK_PAUSE, self._strike, worker)
                return
            self._take(worker, heard.message)
            worker.said += 1
        if not last and not worker.may_talk(self._voice.loop, self._hear):
            self._strike(worker, "it talks without end")

    def _strike(self, worker: Worker, why: str = "") -> None:
        """End one that cannot be told anything any more; without a reason it has closed its link."""
        if not process.is_over(worker.process.pidfd):
            why = why or f"it has closed its link, and runs on as {procfs.described(worker.process.pid)}"
            self._voice.line(worker.id, f"srvd: killed: {why}")
            self.kill(worker.id, dump=False)

    def _take(self, worker: Worker, message: links.Message) -> None:
        emit = self._voice.emit
        match message:
            case links.Ready():
                worker.ready = True
                if worker.held is not None:
                    worker.process.say(worker.held)
                    worker.held = None
                emit(WorkerSaid(worker.id, WorkerReport.READY))
            case links.Serving():
                emit(WorkerSaid(worker.id, WorkerReport.SERVING))
            case links.Failed(reason, traceback):
                emit(WorkerSaid(worker.id, WorkerReport.FAILED, links.clip(traceback or reason)))
            case links.Probed(healthy, text):
                emit(
                    WorkerSaid(worker.id, WorkerReport.HEALTHY if healthy else WorkerReport.UNHEALTHY, links.clip(text))
                )
            case links.Warmed(modules):
                emit(WorkerWarmed(worker.id, tuple(modules)))
            case links.Mixed(file):
                emit(CodeMixed(GenerationId(*worker.id[:2]), links.clip(file)))
            case links.Expired(reason):
                emit(WorkerSaid(worker.id, WorkerReport.WORN, reason))
            case links.Reopened(problem):
                emit(WorkerSaid(worker.id, WorkerReport.REOPENED, problem))
            case links.Pong():
                worker.heard = time.monotonic()
            case links.Bye():
                worker.leaves = True
                emit(WorkerSaid(worker.id, WorkerReport.BYE))
            case links.WatchBell():
                self._voice.woke()

    def _over(self, worker: Worker) -> None:
        """The kernel says that it has ended; how, its parent knows: we, or its zygote, which is about to tell."""
        ended = reap_own(worker.process.pidfd)
        if ended is not None:
            self._finish(worker, ended)
            return
        if worker.id[:2] in self._bereft:
            self._finish(worker, Ended())
            return
        self._voice.loop.remove_reader(worker.process.pidfd)
        worker.cancel()
        worker.timer = self._voice.loop.call_later(STATUS_PAUSE, self._finish, worker, Ended())

    def _finish(self, worker: Worker, ended: Ended) -> None:
        """Its last words, its stderr, its certificate."""
        if self._workers.pop(worker.id, None) is None:
            return
        worker.cancel()
        self._hear(worker, last=True)
        if worker.killed:  # what it started may have outlived it
            worker.process.kill()
        tail = worker.process.finish(self._voice.loop)
        common = self._commons.of(worker.id[:2])
        facts = common.board.read(worker.slot)
        common.free.append(worker.slot)
        oom = ended.signal == signal.SIGKILL and not worker.killed and self._oom.struck()
        death = death_of(worker, ended, facts, tail, out_of_memory=oom, unseen=worker.id[:2] in self._bereft)
        self._voice.emit(WorkerGone(worker.id, death))

    def _release(self, expected: Expected) -> None:
        fds.close_link(expected.link)
        fds.close_all([expected.output.fd, expected.stacks])
        self._commons.of(expected.id[:2]).free.append(expected.slot)
