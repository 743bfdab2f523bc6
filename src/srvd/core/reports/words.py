"""What a worker says of itself: it moves its own life, and is killed for a word that does not fit.

What a failure means for the pool is `losses.py`'s. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.event_names import EventName
from srvd.core.events import WorkerReport, WorkerSaid
from srvd.core.lifecycle import WorkerTrigger
from srvd.core.model import ExitReason, Phase
from srvd.core.operations import probing, reopen
from srvd.core.reports import adoption, replacement
from srvd.core.reports.losses import could_not_boot, lost
from srvd.core.state.model import Generation, Pool, SupervisorState
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

__all__ = ["said"]


def said(
    state: SupervisorState, pool: Pool, generation: Generation, worker: Worker, event: WorkerSaid, turn: Turn
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
            fits = could_not_boot(state, pool, generation, worker, event.text, turn)
        case WorkerReport.HEALTHY | WorkerReport.UNHEALTHY:
            probing.answered(generation, worker, event, turn)
        case WorkerReport.EXPIRED:
            fits = transitions.step(generation, worker, WorkerTrigger.EXPIRED, turn)
            if fits and worker.phase is Phase.SERVING and worker.stays:
                replacement.wears_out(pool, generation, worker, backoff.in_short(event.text), turn)
        case WorkerReport.REOPENED:
            worker.log_problem = backoff.in_short(event.text)  # also said unasked, when its log is lost or found again
            reopen.answered(state, str(worker.id), worker.log_problem)
        case WorkerReport.LEAVING:
            adoption.lead_out(generation, worker, turn)
        case WorkerReport.BYE:
            worker.finished = True
    if not fits:
        text = f"worker {worker.id} said {event.word.value} while {worker.phase.value}; killing it"
        turn.note(EventName.WORKER_MISFIT, text, worker=str(worker.id))
        wasted = backoff.is_strike(worker, turn.now)
        transitions.kill(generation, worker, ExitReason.MISFIT, turn)
        lost(pool, generation, worker, "a worker broke the protocol of its link", turn, strike=wasted)
