"""Workers that are lost: those that ended, that were not ready in time, that could not boot.

What an order or a reload has asked for is no loss. Others are counted, and lead to strikes if they were of no use yet;
`reconcile.py` forks their successors. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.actions import KillWorker
from srvd.core.event_names import EventName
from srvd.core.lifecycle import WorkerTrigger
from srvd.core.model import Cause, Death, ErrorCode, ExitReason, Fault, Phase
from srvd.core.reports.death_records import record_death
from srvd.core.reports.trials import trial_failed, trial_lost
from srvd.core.state.model import Generation, Pool, SupervisorState, Zygote
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

__all__ = ["could_not_boot", "gone", "lost", "overdue"]

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


def lost(pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn, *, strike: bool) -> None:
    """The pool that it served has one worker less than desired, and no order has asked for that."""
    if generation.id.number != pool.active:
        return
    pool.restarts += 1
    if not strike:
        return
    before = pool.backoff.strikes
    backoff.strike(pool.backoff, worker.asked, turn.now, worker.id.serial, reason)
    if pool.backoff.strikes == backoff.CRASHING_STRIKES != before:
        text = f"pool {pool.name} is crashing: {pool.backoff.strikes} workers died before they were of use"
        turn.note(EventName.POOL_CRASHING, text, pool=pool.name)


def could_not_boot(
    state: SupervisorState, pool: Pool, generation: Generation, worker: Worker, text: str, turn: Turn
) -> bool:
    """It has said so itself. Returns whether that fits."""
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
        trial_failed(state, generation, fault, turn)
    lost(pool, generation, worker, f"a new worker could not boot{backoff.last_line(text)}", turn, strike=True)
    return True


def gone(state: SupervisorState, pool: Pool, generation: Generation, worker: Worker, death: Death, turn: Turn) -> None:
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
        trial_lost(state, generation, worker, record, turn)
    elif missed:  # else its loss was counted when it was decided
        strike = backoff.is_strike(worker, turn.now)
        reason = f"a new worker {record.summary}{backoff.last_line(death.stderr)}"
        lost(pool, generation, worker, reason, turn, strike=strike)
        by_itself = death.signal != KILLED_FROM_OUTSIDE or death.out_of_memory
        if pool.bake is not None and generation.id.number == pool.active and by_itself and not strike:
            pool.bake = pool.bake._replace(deaths=pool.bake.deaths + 1)


def overdue(pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
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
        lost(pool, generation, worker, "a new worker was not ready in time", turn, strike=True)
    if deaf and generation.zygote is Zygote.UP:
        text = f"the zygote of {generation.id} does not fork"
        turn.note(EventName.GENERATION_ZYGOTE_STUCK, f"{text}; killing it", generation=str(generation.id))
        if generation.is_trial:
            generation.fault = generation.fault or Fault(ErrorCode.BOOT_FAILED, text)
        transitions.zygote_overdue(generation, turn)
