"""Reports about one worker: each goes to the module that enters it into the state; here, how its fork came out.

Moves only the worker that the report names; `reconcile.py` forks its successor. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.actions import KillWorker
from srvd.core.event_names import EventName
from srvd.core.events import (
    ForkRefused,
    OfWorker,
    RequestOverdue,
    Watched,
    WorkerAnswered,
    WorkerContinued,
    WorkerForked,
    WorkerGone,
    WorkerHeld,
    WorkerOutgrew,
    WorkerSaid,
    WorkerSilent,
    WorkerStopped,
)
from srvd.core.lifecycle import WorkerTrigger
from srvd.core.model import ErrorCode, Fault, Phase, Replacement
from srvd.core.reports import losses, replacement, stopped, words
from srvd.core.reports.trials import find, rollout_of, trial_failed
from srvd.core.state.model import Generation, Pool, SupervisorState
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn


def of_worker(state: SupervisorState, event: OfWorker, turn: Turn) -> None:
    """One report about one worker; a report about a worker that is gone already says nothing any more."""
    found = find(state, event.worker.pool, event.worker.generation)
    worker = found[1].workers.get(event.worker.serial) if found else None
    if found is None or worker is None:
        return
    pool, generation = found
    match event:
        case WorkerForked():
            worker.pid = event.pid
            _forked(state, pool, generation, worker, turn)
        case ForkRefused():
            _refused(state, pool, generation, worker, backoff.in_short(event.reason), turn)
        case WorkerSaid():
            words.said(state, pool, generation, worker, event, turn)
        case WorkerGone():
            losses.gone(state, pool, generation, worker, event.death, turn)
        case _:
            _watched(pool, generation, worker, event, turn)


def _watched(pool: Pool, generation: Generation, worker: Worker, event: Watched, turn: Turn) -> None:
    """What was seen of a worker that does not say it itself."""
    match event:
        case RequestOverdue():
            replacement.overdue(generation, worker, event, turn)
        case WorkerSilent():
            how = "is stopped by a signal" if event.stopped else "does not answer"
            text = f"{how} while clients have waited for {event.seconds:.0f} s"
            replacement.stuck(generation, worker, Replacement.SILENT, text, turn)
        case WorkerAnswered():
            replacement.pardon(generation, worker, turn)
        case WorkerStopped():
            stopped.stopped(generation, worker, turn)
        case WorkerContinued():
            stopped.continued(generation, worker)
        case WorkerHeld():
            stopped.held(worker, turn)
        case WorkerOutgrew():
            replacement.outgrew(pool, generation, worker, event, turn)


def _forked(state: SupervisorState, pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
    cancelled = worker.phase is Phase.CANCELLED
    transitions.step(generation, worker, WorkerTrigger.FORKED, turn)
    found = rollout_of(state, generation)
    if found is not None:
        found[1].refusals = 0
    if pool.backoff.refusals:
        pool.backoff.refusals = 0
        if not pool.backoff.strikes:
            pool.backoff.reason = ""  # what it told of is over
    generation.workers.wait(worker, worker.asked + generation.spec.boot_timeout)
    if cancelled:
        generation.workers.wait(worker, turn.now + transitions.LAST_WORDS)
        turn.do(KillWorker(worker.id))


def _refused(
    state: SupervisorState, pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn
) -> None:
    cancelled = worker.phase is Phase.CANCELLED
    transitions.remove(generation, worker, WorkerTrigger.REFUSED, turn)
    if cancelled:
        return
    text = f"worker {worker.id} was not forked: {reason}; trying again"
    turn.note(EventName.WORKER_NOT_FORKED, text, worker=str(worker.id))
    found = rollout_of(state, generation)
    if generation.id.number == pool.active:
        backoff.refusal(pool.backoff, turn.now, worker.id.serial, f"workers cannot be forked: {reason}")
    elif generation.is_trial and found is not None and turn.now >= found[1].retry_at:  # before: of the same round
        part = found[1]
        part.refusals += 1
        part.retry_at = turn.now + backoff.delay(part.refusals + 1, worker.id.serial)
        if part.refusals >= backoff.REFUSALS:
            fault = Fault(ErrorCode.BOOT_FAILED, f"workers of {generation.id} cannot be forked: {reason}")
            trial_failed(state, generation, fault, turn)
