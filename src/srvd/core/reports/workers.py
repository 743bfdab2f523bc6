"""What workers and zygotes report, entered into the state: deaths become records and strikes.

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
    WorkerReport,
    WorkerSaid,
    WorkerSilent,
    WorkerStopped,
)
from srvd.core.lifecycle import WorkerTrigger
from srvd.core.model import Cause, Death, ErrorCode, ExitReason, Fault, Phase, Replacement
from srvd.core.operations import probing, reopen
from srvd.core.reports import adoption, replacement, stopped
from srvd.core.reports.death_records import record_death
from srvd.core.reports.trials import find, rollout_of, trial_failed, trial_lost
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, Pool, SupervisorState, Zygote
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

KILLED_FROM_OUTSIDE = 9
"""A SIGKILL we did not send and memory did not cause says nothing about the application."""

_UNASKED = (
    ExitReason.NONE,
    ExitReason.BOOT_TIMEOUT,
    ExitReason.HEALTH_TIMEOUT,
    ExitReason.HEALTH_FAILED,
    ExitReason.MISFIT,
)
"""Ends that no order and no reload has asked for."""


def of_worker(house: SupervisorState, event: OfWorker, turn: Turn) -> None:
    """One report about one worker; a report about a worker that is gone already says nothing any more."""
    found = find(house, event.worker.pool, event.worker.generation)
    worker = found[1].workers.get(event.worker.serial) if found else None
    if found is None or worker is None:
        return
    pool, generation = found
    match event:
        case WorkerForked():
            worker.pid = event.pid
            _forked(house, pool, generation, worker, turn)
        case ForkRefused():
            _refused(house, pool, generation, worker, backoff.in_short(event.reason), turn)
        case WorkerSaid():
            _said(house, pool, generation, worker, event, turn)
        case WorkerGone():
            _gone(house, pool, generation, worker, event.death, turn)
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
            generation.workers.wake(worker, NEVER)
        case WorkerHeld():
            stopped.held(worker, turn)
        case WorkerOutgrew():
            replacement.outgrew(pool, generation, worker, event, turn)


def _forked(house: SupervisorState, pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
    cancelled = worker.phase is Phase.CANCELLED
    transitions.step(generation, worker, WorkerTrigger.FORKED, turn)
    found = rollout_of(house, generation)
    if found is not None:
        found[1].refusals = 0
    if pool.breaker.refusals:
        pool.breaker.refusals = 0
        if not pool.breaker.strikes:
            pool.breaker.reason = ""  # what it told of is over
    generation.workers.wait(worker, worker.asked + generation.spec.boot_timeout)
    if cancelled:
        generation.workers.wait(worker, turn.now + transitions.LAST_WORDS)
        turn.do(KillWorker(worker.id))


def _refused(
    house: SupervisorState, pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn
) -> None:
    cancelled = worker.phase is Phase.CANCELLED
    transitions.remove(generation, worker, WorkerTrigger.REFUSED, turn)
    if cancelled:
        return
    text = f"worker {worker.id} was not forked: {reason}; trying again"
    turn.note(EventName.WORKER_NOT_FORKED, text, worker=str(worker.id))
    found = rollout_of(house, generation)
    if generation.id.number == pool.active:
        backoff.refusal(pool.breaker, turn.now, worker.id.serial, f"workers cannot be forked: {reason}")
    elif generation.is_trial and found is not None and turn.now >= found[1].retry_at:  # before: of the same round
        part = found[1]
        part.refusals += 1
        part.retry_at = turn.now + backoff.delay(part.refusals + 1, worker.id.serial)
        if part.refusals >= backoff.REFUSALS:
            fault = Fault(ErrorCode.BOOT_FAILED, f"workers of {generation.id} cannot be forked: {reason}")
            trial_failed(house, generation, fault, turn)


def _said(
    house: SupervisorState, pool: Pool, generation: Generation, worker: Worker, event: WorkerSaid, turn: Turn
) -> None:
    fits = True
    match event.word:
        case WorkerReport.READY:
            fits = transitions.step(generation, worker, WorkerTrigger.READY, turn)
            if fits and worker.phase is Phase.STANDBY:
                worker.ready_at = turn.now
                text = f"worker {worker.id} ready, pid {worker.pid}"
                turn.note(EventName.WORKER_READY, text, worker=str(worker.id))
        case WorkerReport.SERVING:
            fits = transitions.step(generation, worker, WorkerTrigger.CONFIRMED, turn)
        case WorkerReport.CLOSED:
            fits = transitions.step(generation, worker, WorkerTrigger.CLOSED, turn)
            if fits:
                generation.workers.close(worker)
        case WorkerReport.FAILED:
            fits = _cannot_boot(house, pool, generation, worker, event.text, turn)
        case WorkerReport.HEALTHY | WorkerReport.UNHEALTHY:
            probing.answered(generation, worker, event, turn)
        case WorkerReport.WORN:
            fits = transitions.step(generation, worker, WorkerTrigger.WORN, turn)
            if fits and worker.phase is Phase.SERVING and worker.stays:
                replacement.wears_out(pool, generation, worker, backoff.in_short(event.text), turn)
        case WorkerReport.REOPENED:
            worker.log_problem = backoff.in_short(event.text)  # also said unasked, when its log is lost or found again
            reopen.answered(house, str(worker.id), worker.log_problem)
        case WorkerReport.LEAVING:
            adoption.lead_out(generation, worker, turn)
        case WorkerReport.BYE:
            worker.finished = True
    if not fits:
        text = f"worker {worker.id} said {event.word.value} while {worker.phase.value}; killing it"
        turn.note(EventName.WORKER_MISFIT, text, worker=str(worker.id))
        wasted = backoff.is_strike(worker, turn.now)
        transitions.kill(generation, worker, ExitReason.MISFIT, turn)
        _lost(pool, generation, worker, "a worker broke the protocol of its link", turn, strike=wasted)


def _cannot_boot(
    house: SupervisorState, pool: Pool, generation: Generation, worker: Worker, text: str, turn: Turn
) -> bool:
    killed = worker.phase is Phase.KILLED  # said before the kill arrived
    if not transitions.step(generation, worker, WorkerTrigger.FAILED, turn):
        return False
    worker.failure = worker.failure or text
    if killed:
        return True
    generation.workers.wait(worker, turn.now + transitions.LAST_WORDS)
    turn.do(KillWorker(worker.id))
    if generation.is_trial:  # at once, or another canary would boot meanwhile
        fault = Fault(
            ErrorCode.BOOT_FAILED, f"worker {worker.id} could not boot{backoff.last_line(text)}", traceback=text
        )
        trial_failed(house, generation, fault, turn)
    _lost(pool, generation, worker, f"a new worker could not boot{backoff.last_line(text)}", turn, strike=True)
    return True


def _lost(pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn, *, strike: bool) -> None:
    """The pool that it served has one worker less than desired, and no order has asked for that."""
    if generation.id.number != pool.active:
        return
    pool.restarts += 1
    if not strike:
        return
    before = pool.breaker.strikes
    backoff.strike(pool.breaker, worker.asked, turn.now, worker.id.serial, reason)
    if pool.breaker.strikes == backoff.CRASHING_STRIKES != before:
        text = f"pool {pool.name} is crashing: {pool.breaker.strikes} workers died before they were of use"
        turn.note(EventName.POOL_CRASHING, text, pool=pool.name)


def worker_overdue(pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
    """The worker's deadline has passed. A zygote that has not forked by then is deaf and is replaced."""
    deaf = worker.phase in (Phase.ASKED, Phase.CANCELLED)
    late = worker.phase in (Phase.BOOTING, Phase.OPENING)
    transitions.overdue(generation, worker, turn)
    if late and generation.is_trial:
        message = f"worker {worker.id} was not ready within {generation.spec.boot_timeout:g} s"
        transitions.doom(
            generation, Fault(ErrorCode.BOOT_FAILED, message, "raise boot_timeout, or see where it waits"), turn
        )
    elif late:
        _lost(pool, generation, worker, "a new worker was not ready in time", turn, strike=True)
    if deaf and generation.zygote is Zygote.UP:
        text = f"the zygote of {generation.id} does not fork"
        turn.note(EventName.GENERATION_ZYGOTE_STUCK, f"{text}; killing it", generation=str(generation.id))
        if generation.is_trial:
            generation.fault = generation.fault or Fault(ErrorCode.BOOT_FAILED, text)
        transitions.zygote_overdue(generation, turn)


def _gone(house: SupervisorState, pool: Pool, generation: Generation, worker: Worker, death: Death, turn: Turn) -> None:
    record = record_death(pool, worker, death, turn)
    missed = worker.is_capacity
    accepted = worker.phase in (Phase.OPENING, Phase.SERVING)
    unasked = worker.exit_reason in _UNASKED
    transitions.remove(generation, worker, WorkerTrigger.EXITED, turn)
    if unasked or record.cause is Cause.DIED_LEAVING:
        text = f"worker {worker.id} {record.summary}"
        turn.note(EventName.WORKER_DIED, text, worker=str(worker.id), cause=record.cause.value)
    else:
        text = f"worker {worker.id} left ({record.summary})"
        turn.note(EventName.WORKER_LEFT, text, worker=str(worker.id), cause=record.cause.value)
    if death.behind:
        left = backoff.left_behind(f"worker {worker.id}", death.behind)
        turn.note(EventName.WORKER_LEFT_PROCESSES, left, worker=str(worker.id))
    if generation.is_trial and unasked and not accepted:
        trial_lost(house, generation, worker, record, turn)
    elif missed:  # else its loss was counted when it was decided
        strike = backoff.is_strike(worker, turn.now)
        reason = f"a new worker {record.summary}{backoff.last_line(death.stderr)}"
        _lost(pool, generation, worker, reason, turn, strike=strike)
        by_itself = death.signal != KILLED_FROM_OUTSIDE or death.out_of_memory
        if pool.bake is not None and generation.id.number == pool.active and by_itself and not strike:
            pool.bake = pool.bake._replace(deaths=pool.bake.deaths + 1)
