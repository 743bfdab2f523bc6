"""Performs the actions of the core on zygotes, workers and listeners; results come back as events.

Decides nothing and never blocks. May be used before the loop runs: the first zygote loads meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from socket import socket
from typing import assert_never

from srvd.config.health import probe_url
from srvd.config.settings import Config, PoolSettings
from srvd.core.actions import (
    CountAnswers,
    DropRevision,
    Fork,
    KillWorker,
    KillZygote,
    SealListeners,
    StartZygote,
    StopZygote,
    Teach,
    TellWorker,
    WorkerCommand,
)
from srvd.core.events import AnswersCounted, Event, WorkerContinued, WorkerGone, WorkerStopped, ZygoteGone
from srvd.core.model import Answers, Revision
from srvd.daemon.children import commons as common_things
from srvd.daemon.children import worker as employed
from srvd.daemon.children import zygotes
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.leftovers import Leftovers
from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.spawn import Fronts
from srvd.daemon.children.workers import Workers
from srvd.daemon.children.zygotes import Zygotes
from srvd.daemon.family.callers import Orphan
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds, interpreter
from srvd.linux.processes import process
from srvd.record import Record
from srvd.wire import links

__all__ = ["PERFORMED", "Family", "Performer"]

Performed = (
    StartZygote | StopZygote | KillZygote | Teach | Fork | TellWorker | KillWorker | CountAnswers | SealListeners
    | DropRevision
)  # fmt: skip

PERFORMED = (StartZygote, StopZygote, KillZygote, Teach, Fork, TellWorker, KillWorker, CountAnswers,
             SealListeners, DropRevision)  # fmt: skip
"""The actions that `perform` takes."""

_HANDSHAKES = 1.0
"""Seconds for handshakes that were under way when the listeners were sealed."""

_LOOK = 0.1
"""Seconds between two looks at the backlogs, until these are empty."""

_ZOMBIES = 256
"""Strangers that are reaped in one call; SIGCHLD comes again for the others."""


class Family(Record):
    """The processes as they are handed over. revisions: the configuration that each generation was made from."""

    revisions: dict[GenerationId, Revision]
    zygotes: tuple[zygotes.ZygoteState, ...]
    workers: tuple[employed.WorkerState, ...]
    commons: tuple[common_things.CommonsState, ...]


class Performer:
    """Owns the workers, the zygotes and what they share."""

    def __init__(
        self,
        loop: Loop,
        commons: Commons,
        listeners: Listeners,
        emit: Callable[[Event], None],
        wake_watcher: Callable[[], None],
        line: Callable[[WorkerId | GenerationId, str], None],
        family_lock: FamilyLock | None = None,
    ) -> None:
        self._loop = loop
        self._listeners = listeners
        self._emit = emit
        outlets = Outlets(loop, self._pass_on, wake_watcher, line)
        self._commons = commons
        self.workers = Workers(outlets, commons)
        self.zygotes = Zygotes(outlets, commons, self.workers, family_lock)
        self.leftovers = Leftovers(self._is_known)
        self._configs: dict[Revision, Config] = {}
        self._revisions: dict[GenerationId, Revision] = {}

    def _is_known(self, pid: int) -> bool:
        """A worker, a zygote and a prepared interpreter are no leftovers."""
        return pid in self.workers.pids() or pid in self.zygotes.pids() or pid in interpreter.prepared()

    def _pass_on(self, event: Event) -> None:
        match event:
            case WorkerGone(_, death):
                event = event._replace(death=death._replace(behind=self.leftovers.new()))
            case ZygoteGone():
                event = event._replace(behind=self.leftovers.new())
        self._emit(event)
        if isinstance(event, WorkerGone):
            self.zygotes.let_go()

    def settle(self, revision: Revision, config: Config) -> None:
        """Give the settings of a revision, before any action names it. Its listeners were prepared."""
        self._configs[revision] = config

    def perform(self, action: Performed) -> None:
        """Perform or begin the action. A failure is told by the event that answers the action."""
        match action:
            case StartZygote(generation, revision):
                self._start(generation, revision)
            case StopZygote(generation):
                self.zygotes.stop(generation)
            case KillZygote(generation, dump):
                self.zygotes.kill(generation, dump=dump)
            case Teach(generation, modules):
                self.zygotes.teach(generation, modules)
            case Fork(worker):
                self.workers.order(worker, self.zygotes.process(worker.generation_id))
            case TellWorker():
                self._tell(action)
            case KillWorker(worker, dump):
                self.workers.kill(worker, dump=dump)
            case CountAnswers(pool):
                self._emit(AnswersCounted(pool, self._answers(pool)))
            case SealListeners():
                self._listeners.seal()
                self._loop.call_later(_HANDSHAKES, self._close_emptied)
            case DropRevision(revision):
                self._drop(revision)
            case _ as never:
                assert_never(never)

    def _close_emptied(self) -> None:
        if self._listeners.close_emptied():
            self._loop.call_later(_LOOK, self._close_emptied)

    def settings(self, worker: WorkerId) -> PoolSettings:
        """The settings that the worker was forked with."""
        return self._pool(worker.generation_id)

    def listeners(self, generation: GenerationId) -> Sequence[socket]:
        """The sockets that workers of the generation accept from; none if the generation is not known."""
        revision = self._revisions.get(generation)
        if revision is None:
            return []
        names = self._pool(generation).listeners
        return [sock for _, sock in self._listeners.of(revision, names)]

    def reap_strangers(self) -> list[int]:
        """Reap children that are no worker or zygote: processes that workers left to the subreaper. Returns their pids.

        Called on SIGCHLD. A worker or zygote that has ended is handled as if its pidfd had told. Also reports workers
        without a zygote that a signal has stopped or continued.
        """
        for halt in process.halts():
            adopted = self.workers.pids().get(halt.pid)  # whose zygote is gone
            if adopted is not None:
                self._emit(WorkerStopped(adopted) if halt.stopped else WorkerContinued(adopted))
        reaped = []
        for _ in range(_ZOMBIES):
            pid = process.next_zombie()
            if pid is None:
                break
            worker, zygote = self.workers.pids().get(pid), self.zygotes.pids().get(pid)
            if worker is not None:
                self.workers.check(worker)
            elif zygote is not None:
                self.zygotes.check(zygote)
            else:
                process.reap_pid(pid)
                reaped.append(pid)
        return reaped

    def save(self, fd_table: FdTable) -> Family:
        """The state for the next program; the descriptors go to `fd_table`. The processes notice nothing."""
        return Family(
            dict(self._revisions),
            self.zygotes.save(fd_table),
            self.workers.save(fd_table),
            self._commons.save(fd_table),
        )

    def restore(self, found: Family, fd_table: FdTable) -> None:
        """Go on with what `save` described. Raises `Unsupported`, `OSError`.

        The settings of every revision were given before.
        """
        self._revisions = dict(found.revisions)
        self._commons.restore(found.commons, fd_table)
        for zygote in found.zygotes:
            self.zygotes.restore(zygote, self._pool(zygote.id), fd_table)
        self.workers.restore(found.workers, {zygote.id for zygote in found.zygotes}, fd_table)
        self.zygotes.let_go()

    def greet(self) -> None:
        """Tell the processes that have called, after the death of a daemon, that they are adopted."""
        self.workers.greet()
        self.zygotes.greet()

    def welcome(self, orphan: Orphan) -> bool:
        """Take in an adopted process that calls late. Returns False if no table waits for it."""
        match orphan.id:
            case WorkerId() as worker:
                generation, welcomed = worker.generation_id, self.workers.welcome(worker, orphan)
            case GenerationId() as generation:
                welcomed = self.zygotes.welcome(generation, orphan)
        if welcomed:
            os.close(orphan.pidfd)
            common = self._commons.of(generation)
            taken = {orphan.board} if common.bring(orphan.board) else set()
            fds.discard(fd for fd in (orphan.bell, orphan.board, *orphan.listeners) if fd >= 0 and fd not in taken)
        return welcomed

    def missing(self) -> list[WorkerId | GenerationId]:
        """The processes that were adopted and have not called yet, and those whose link has just ended."""
        return [*self.zygotes.missing(), *self.workers.missing()]

    def close(self, *, dismiss: bool = True) -> None:
        """Let go of all processes at the end of the daemon.

        dismiss: tell zygotes to leave, and workers to drain and leave. Else they wait for the next daemon.
        """
        self.workers.close(dismiss=dismiss)
        self.zygotes.close(dismiss=dismiss)
        self._commons.keep(set())

    def _start(self, generation: GenerationId, revision: Revision) -> None:
        self._revisions[generation] = revision
        pool = self._addressed(generation)
        config = self._configs[revision]
        fronts = Fronts(config.listeners, config.tls)
        listeners = self._listeners.of(revision, pool.listeners)
        self.zygotes.start(generation, pool, listeners, fronts, config.folder)

    def _tell(self, action: TellWorker) -> None:
        match action.told:
            case WorkerCommand.SERVE:
                self.workers.tell(action.worker, links.Serve())
            case WorkerCommand.DRAIN:
                left = self._left_over(action.worker) if action.leaving else []
                self.workers.tell(action.worker, links.Drain(action.seconds, action.leaving, left, action.late))
                self.workers.wake(action.worker)
            case WorkerCommand.PROBE:
                self.workers.tell(action.worker, links.Probe(self._probe_url(action.worker), action.seconds))
            case WorkerCommand.WARM:
                self.workers.tell(action.worker, links.Warm(list(self._addressed(action.worker.generation_id).warm)))
            case WorkerCommand.REOPEN:
                self.workers.tell(action.worker, links.Reopen())
            case WorkerCommand.WAKE:
                self.workers.wake(action.worker)
            case WorkerCommand.DUMP:
                self.workers.log_stacks(action.worker)

    def _addressed(self, generation: GenerationId) -> PoolSettings:
        """The settings of the generation's pool, with URLs in place of paths, as a worker calls them."""
        config, name = self._configs[self._revisions[generation]], generation.pool
        pool = config.pools[name]
        return pool._replace(
            health=probe_url(config, name) if pool.health else "",
            warm=tuple(probe_url(config, name, path) for path in pool.warm),
        )

    def _answers(self, pool: str) -> tuple[tuple[WorkerId, Answers], ...]:
        """The answers of each worker of the pool, by class; requests without an answer do not count."""
        found = []
        for worker in self.workers.pids().values():
            if worker.pool == pool:
                _, *classes = self.workers.facts(worker).by_class
                found.append((worker, Answers(sum(classes), classes[4])))
        return tuple(found)

    def _probe_url(self, worker: WorkerId) -> str:
        return probe_url(self._configs[self._revisions[worker.generation_id]], worker.pool)

    def _left_over(self, worker: WorkerId) -> list[int]:
        """The listeners whose backlog the worker must not empty."""
        return self._listeners.left_over(self._revisions[worker.generation_id], self.settings(worker).listeners)

    def _drop(self, revision: Revision) -> None:
        self._listeners.drop(revision)
        self._configs.pop(revision, None)
        self._revisions = {gen: used for gen, used in self._revisions.items() if used != revision}

    def _pool(self, generation: GenerationId) -> PoolSettings:
        return self._configs[self._revisions[generation]].pools[generation.pool]
