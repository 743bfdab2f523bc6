"""The workers that run: has them forked, sends them orders, and tells the core what each one says and how it ends.

Decides nothing. A worker is reaped by its zygote or, if the zygote has ended, by the daemon, which is the subreaper.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from functools import partial

from srvd.core.events import (
    CodeMixed,
    ForkRefused,
    WorkerContinued,
    WorkerForked,
    WorkerGone,
    WorkerReport,
    WorkerSaid,
    WorkerStopped,
    WorkerWarmed,
)
from srvd.daemon.children.commons import Common, Commons
from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.process import Process
from srvd.daemon.children.starting.ordered import OrderedWorkers
from srvd.daemon.children.table import LINK_PAUSE, Table
from srvd.daemon.children.worker import Worker, WorkerState, death_of, request_lines
from srvd.daemon.family.callers import Orphan
from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import process, procfs
from srvd.linux.processes.cgroup import OomWatch
from srvd.linux.processes.process import Ended
from srvd.linux.scoreboard import LaneFacts, Request
from srvd.wire import links

__all__ = ["Workers"]

STATUS_PAUSE = 1.0
"""Seconds for a zygote to tell how a worker ended, after the kernel has told that it ended."""

_LAST_SECONDS = 30.0  # for a worker's requests when the daemon itself cannot go on


class Workers(Table[WorkerId, Worker]):
    """Owns the workers. Each `WorkerForked` is followed by exactly one `WorkerGone`, the last event of that worker."""

    def __init__(self, outlets: Outlets, commons: Commons) -> None:
        super().__init__(outlets, links.FROM_WORKER)
        self._commons = commons
        self._oom = OomWatch()
        self._ordered = OrderedWorkers(commons, outlets.line)
        self._of: Counter[GenerationId] = Counter()  # workers that run
        self._without_zygote: set[GenerationId] = set()  # generations that have workers

    # -- orders -----------------------------------------------------------------------------------------------

    def order(self, worker: WorkerId, zygote: Process | None) -> None:
        """Have the zygote fork the worker; `WorkerForked` or `ForkRefused` follows, or the zygote's end."""
        refusal = self._ordered.order(worker, zygote)
        if refusal:
            self._outlets.emit(ForkRefused(worker, refusal))

    def tell(self, worker: WorkerId, message: links.Message) -> None:
        """Send a message. A worker that does not react is the core's to notice: each order has a deadline.

        Messages to a booting worker wait until it reports READY, because traffic on the link would kill it
        (`fds.kill_at_end`). The core has one order for such a worker, to reopen its log, and needs it once. Messages to
        an adopted worker wait until it calls; `Drain` is the last order then.
        """
        found = self.find(worker)
        if found is None:
            return
        if found.ready and not found.is_away:
            found.process.say(message)
        elif not isinstance(found.pending, links.Drain) and not isinstance(message, links.Ping):
            found.pending = message

    def wake(self, worker: WorkerId) -> None:
        """Continue a worker that was stopped, so that it reads its orders. A worker that runs is not affected."""
        found = self.find(worker)
        if found is not None and procfs.state(found.process.pid) != procfs.TRACED:  # a debugger continues it
            found.process.signal(signal.SIGCONT)

    # -- what zygotes tell ------------------------------------------------------------------------------------

    def forked(self, worker: WorkerId, pid: int, zygote: int) -> str:
        """Watch a worker that the zygote with the pid `zygote` has forked.

        Returns the reason if that cannot be true, else "". Only a child of the zygote is accepted, because the daemon
        will signal the process.
        """
        if worker not in self._ordered:
            return f"it tells of a worker {worker} that was not ordered"
        try:
            pidfd = process.open_pidfd(pid)
        except ProcessLookupError:  # it has ended, and its zygote, which has reaped it, is about to tell how
            pidfd = process.over()
        except (OSError, OverflowError) as exc:
            self.refused(worker, f"open its pidfd: {exc}")  # the worker sees the end of its link and leaves
            return ""
        if procfs.parent(pid) == zygote or process.is_over(pidfd):  # in this order: it may end in between
            self._of[worker.generation_id] += 1
            born = self._add(self._ordered.born(worker, pid, pidfd))
            self._outlets.emit(WorkerForked(worker, born.process.pid))
            return ""
        os.close(pidfd)
        return f"it tells of a worker {worker} with pid {pid}, which is no child of its own"

    def refused(self, worker: WorkerId, reason: str) -> None:
        """The zygote could not fork the worker."""
        if self._ordered.drop(worker):
            self._outlets.emit(ForkRefused(worker, reason))

    def reaped(self, worker: WorkerId, ended: Ended) -> None:
        """The zygote has reaped the worker."""
        found = self.find(worker)
        if found is not None:
            self._finish(found, ended)

    def zygote_gone(self, generation: GenerationId) -> None:
        """Forget the workers that were ordered (the core does, too), and reap those whose end was not told."""
        self._ordered.drop_all(generation)
        known = [worker for worker in self._entries.values() if worker.id.generation_id == generation]
        if known:
            self._without_zygote.add(generation)
        for worker in known:
            if process.is_over(worker.process.pidfd):
                self._finish(worker, worker.process.reap() or Ended())

    def report_halts(self) -> None:
        """Report the workers without a zygote that a signal has stopped or continued: the daemon is their parent."""
        for halt in process.halts():
            worker = self._pids.get(halt.pid)
            if worker is not None:
                self._outlets.emit(WorkerStopped(worker) if halt.stopped else WorkerContinued(worker))

    # -- what is known ----------------------------------------------------------------------------------------

    def generations(self) -> set[GenerationId]:
        """The generations that have a worker, running or ordered."""
        return self._of.keys() | self._ordered.generations()

    def facts(self, worker: WorkerId) -> LaneFacts:
        """What the scoreboard says of the worker; all zero if it does not run."""
        found = self.find(worker)
        return LaneFacts() if found is None else self._common(found).board.read(found.slot)

    def requests(self, worker: WorkerId) -> list[Request]:
        """The requests that the worker is in, the oldest first."""
        found = self.find(worker)
        return [] if found is None else self._common(found).board.requests(found.slot)

    def tally(self, worker: WorkerId) -> tuple[int, int]:
        """How many requests the worker has answered, and how many it is in."""
        found = self.find(worker)
        return (0, 0) if found is None else self._common(found).board.tally(found.slot)

    def heard(self, worker: WorkerId) -> float:
        """Monotonic time of the last answer to a `Ping`; 0.0: never."""
        found = self.find(worker)
        return 0.0 if found is None else found.heard

    def state(self, worker: WorkerId) -> str:
        """The kernel's state of the process, in the words of `procfs`; "" if the worker does not run."""
        found = self.find(worker)
        return "" if found is None else procfs.state(found.process.pid)

    def rss(self, worker: WorkerId) -> int:
        """Resident bytes; 0 when they cannot be read."""
        found = self.find(worker)
        return 0 if found is None else found.process.rss()

    # -- over programs ----------------------------------------------------------------------------------------

    def save(self, fd_table: FdTable) -> tuple[WorkerState, ...]:
        """The state for the next program; the descriptors go to `fd_table`. The workers notice nothing."""
        return (*self._ordered.save(fd_table), *(worker.save(fd_table) for worker in self._entries.values()))

    def restore(self, states: Sequence[WorkerState], zygotes: Set[GenerationId], fd_table: FdTable) -> None:
        """Go on with the workers that `save` described.

        zygotes: the generations whose zygotes run. Raises `Unsupported`, `OSError`.
        """
        self._without_zygote = {state.id.generation_id for state in states} - zygotes
        for state in states:
            self._commons.of(state.id.generation_id).free.remove(state.slot)
            if state.pid:
                self._of[state.id.generation_id] += 1
                output = partial(self._output, state.id, read=state.read)
                self._restore(Worker.restore(state, fd_table, output))
            else:
                self._ordered.restore(state, fd_table)

    def close(self, *, dismiss: bool) -> None:
        """As `Table.close`. A booting worker is killed in both cases: it has asked the kernel for that."""
        self._ordered.drop_all()
        super().close(dismiss=dismiss)

    # -- one worker -------------------------------------------------------------------------------------------

    def _hear(self, worker: Worker, *, last: bool = False) -> None:
        super()._hear(worker, last=last)
        link = worker.process.link
        if last or link is None:
            return
        pause = worker.talk.pause(time.monotonic())
        if pause is None:
            self._strike(worker, "it talks without end")
        elif pause:
            self._outlets.loop.remove_reader(link.fileno())
            self._outlets.loop.call_later(pause, self._hear_again, worker, link)

    def _hear_again(self, worker: Worker, link: socket.socket) -> None:
        worker.talk.restart(time.monotonic())
        if worker.process.link is link:
            self._outlets.loop.add_reader(link.fileno(), self._hear, worker)

    def _link_ended(self, worker: Worker, nonsense: str, *, last: bool) -> None:
        if nonsense:
            self._strike(worker, nonsense)
        elif not last and not worker.leaves:  # a process that ends closes its link a moment before
            worker.timer = self._outlets.loop.call_later(LINK_PAUSE, self._strike, worker)

    def _strike(self, worker: Worker, why: str = "") -> None:
        """Kill a worker that cannot be told anything any more; without a reason it has closed its link."""
        if not process.is_over(worker.process.pidfd):
            why = why or f"it has closed its link, and runs on as {procfs.described(worker.process.pid)}"
            self._outlets.line(worker.id, f"srvd: killed: {why}")
            self.kill(worker.id, dump=False)

    def _take(self, worker: Worker, message: links.Message) -> None:
        worker.talk.count()
        match message:
            case links.Ready():
                worker.ready = True
                worker.say_pending()
                self._report(worker, WorkerReport.READY)
            case links.Serving():
                self._report(worker, WorkerReport.SERVING)
            case links.Closed():
                self._report(worker, WorkerReport.CLOSED)
            case links.Failed(reason, traceback):
                self._report(worker, WorkerReport.FAILED, links.clip(traceback or reason))
            case links.Probed(healthy, text):
                self._report(worker, WorkerReport.HEALTHY if healthy else WorkerReport.UNHEALTHY, links.clip(text))
            case links.Warmed(modules):
                self._outlets.emit(WorkerWarmed(worker.id, tuple(modules)))
            case links.Mixed(file):
                self._outlets.emit(CodeMixed(worker.id.generation_id, links.clip(file)))
            case links.Expired(reason):
                self._report(worker, WorkerReport.EXPIRED, reason)
            case links.Reopened(problem):
                self._report(worker, WorkerReport.REOPENED, problem)
            case links.Pong():
                worker.heard = time.monotonic()
            case links.Bye():
                worker.leaves = True
                self._report(worker, WorkerReport.BYE)
            case links.WatchBell():
                self._outlets.wake_watcher()

    def _report(self, worker: Worker, report: WorkerReport, text: str = "") -> None:
        self._outlets.emit(WorkerSaid(worker.id, report, text))

    def _over(self, worker: Worker) -> None:
        """The parent of the worker knows how it ended: the daemon, or the zygote, which is about to tell."""
        ended = worker.process.reap()
        if ended is not None:
            self._finish(worker, ended)
        elif worker.id.generation_id in self._without_zygote:
            self._finish(worker, Ended())
        else:
            self._outlets.loop.remove_reader(worker.process.pidfd)
            worker.cancel()
            worker.timer = self._outlets.loop.call_later(STATUS_PAUSE, self._finish, worker, Ended())

    def _finish(self, worker: Worker, ended: Ended) -> None:
        """Take the last messages and the rest of stderr, free the slot, and tell the core of the death."""
        if self.find(worker.id) is None:
            return
        self._remove(worker)
        self._of[worker.id.generation_id] -= 1
        if not self._of[worker.id.generation_id]:
            del self._of[worker.id.generation_id]
        worker.cancel()
        self._hear(worker, last=True)
        if worker.killed:  # processes that it started may have outlived it
            worker.process.kill()
        tail = worker.process.finish(self._outlets.loop)
        common = self._common(worker)
        facts = common.board.read(worker.slot)
        common.free.append(worker.slot)
        oom = ended.signal == signal.SIGKILL and not worker.killed and self._oom.struck()
        unseen = worker.id.generation_id in self._without_zygote
        death = death_of(ended, facts, unseen=unseen)
        stacks = "" if worker.trace is None else links.clip(worker.trace.text)
        self._outlets.emit(WorkerGone(worker.id, death._replace(out_of_memory=oom, stderr=tail, stacks=stacks)))

    def _welcomed(self, worker: Worker, caller: Orphan) -> None:
        worker.process.say(links.Adopted())
        worker.say_pending()

    def _dismiss(self, worker: Worker) -> None:
        worker.process.say(links.Drain(_LAST_SECONDS, leaving=True, left_over=[]))

    def _requests(self, worker: Worker) -> Iterable[str]:
        return request_lines(self._common(worker).board.requests(worker.slot))

    def _common(self, worker: Worker) -> Common:
        return self._commons.of(worker.id.generation_id)
