"""Performs the actions of the core on zygotes, workers and listeners; results come back as events.

Decides nothing and never blocks. May be used before the loop runs: the first zygote loads meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

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
from srvd.core.events import AnswersCounted, Event
from srvd.core.model import Answers
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.processes import Processes
from srvd.daemon.children.revisions import Revisions
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop
from srvd.ids import GenerationId, WorkerId
from srvd.wire import links

__all__ = ["PERFORMED", "Performer"]

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


class Performer:
    """Owns the processes and the revisions that they are made from."""

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
        self.revisions = Revisions(listeners)
        outlets = Outlets(loop, emit, wake_watcher, line)
        self.processes = Processes(outlets, commons, self.revisions, family_lock)

    def perform(self, action: Performed) -> None:
        """Perform or begin the action. A failure is told by the event that answers the action."""
        match action:
            case StartZygote(generation, revision):
                self.revisions.assign(generation, revision)
                self.processes.zygotes.start(generation, self.revisions.spec(generation))
            case StopZygote(generation):
                self.processes.zygotes.stop(generation)
            case KillZygote(generation, dump):
                self.processes.zygotes.kill(generation, dump=dump)
            case Teach(generation, modules):
                self.processes.zygotes.teach(generation, modules)
            case Fork(worker):
                self.processes.workers.order(worker, self.processes.zygotes.process(worker.generation_id))
            case TellWorker():
                self._tell(action)
            case KillWorker(worker, dump):
                self.processes.workers.kill(worker, dump=dump)
            case CountAnswers(pool):
                self._emit(AnswersCounted(pool, self._answers(pool)))
            case SealListeners():
                self._listeners.seal()
                self._loop.call_later(_HANDSHAKES, self._close_emptied)
            case DropRevision(revision):
                self._listeners.drop(revision)
                self.revisions.drop(revision)
            case _ as never:
                assert_never(never)

    def _close_emptied(self) -> None:
        if self._listeners.close_emptied():
            self._loop.call_later(_LOOK, self._close_emptied)

    def _tell(self, action: TellWorker) -> None:
        worker, workers = action.worker, self.processes.workers
        match action.told:
            case WorkerCommand.SERVE:
                workers.tell(worker, links.Serve())
            case WorkerCommand.DRAIN:
                left = self.revisions.left_over(worker.generation_id) if action.leaving else []
                workers.tell(worker, links.Drain(action.seconds, action.leaving, left, action.late))
                workers.wake(worker)
            case WorkerCommand.PROBE:
                workers.tell(worker, links.Probe(self.revisions.probe_url(worker.generation_id), action.seconds))
            case WorkerCommand.WARM:
                workers.tell(worker, links.Warm(self.revisions.warm_urls(worker.generation_id)))
            case WorkerCommand.REOPEN:
                workers.tell(worker, links.Reopen())
            case WorkerCommand.WAKE:
                workers.wake(worker)
            case WorkerCommand.DUMP:
                workers.log_stacks(worker)

    def _answers(self, pool: str) -> tuple[tuple[WorkerId, Answers], ...]:
        """The answers of each worker of the pool, by class; requests without an answer do not count."""
        found = []
        for worker in self.processes.workers.pids().values():
            if worker.pool == pool:
                _, *classes = self.processes.workers.facts(worker).by_class
                found.append((worker, Answers(sum(classes), classes[4])))
        return tuple(found)
