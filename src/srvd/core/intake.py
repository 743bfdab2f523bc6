"""Where each kind of event goes: to the module that enters it into the observed state.

Enters and decides nothing itself. What follows from the state afterwards is `settle.py`'s. Pure.
"""

from __future__ import annotations

from srvd.core import sweep
from srvd.core.events import (
    AnswersCounted,
    CancelAsked,
    CodeMixed,
    ConfigRead,
    ConfigRefused,
    Event,
    ForkRefused,
    LogReopened,
    Ordered,
    ProgramChecked,
    ProgramReplaced,
    RequestOverdue,
    Resumed,
    Started,
    Tick,
    WorkerAnswered,
    WorkerContinued,
    WorkerForked,
    WorkerGone,
    WorkerHeld,
    WorkerOutgrew,
    WorkerSaid,
    WorkerSilent,
    WorkerStopped,
    WorkerWarmed,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLearned,
    ZygoteLoaded,
)
from srvd.core.operations import baking, orders, reopen, warming
from srvd.core.reports import adoption, workers, zygotes
from srvd.core.state.model import SupervisorState
from srvd.core.turn import Turn

__all__ = ["pool_of", "take"]


def take(state: SupervisorState, event: Event, turn: Turn) -> None:
    match event:
        case WorkerSaid() | WorkerForked() | ForkRefused() | WorkerGone():
            workers.of_worker(state, event, turn)
        case RequestOverdue() | WorkerSilent() | WorkerAnswered() | WorkerOutgrew():
            workers.of_worker(state, event, turn)
        case WorkerStopped() | WorkerContinued() | WorkerHeld():
            workers.of_worker(state, event, turn)
        case ZygoteLoaded() | ZygoteFailed() | ZygoteGone():
            zygotes.of_zygote(state, event, turn)
        case WorkerWarmed() | ZygoteLearned() | CodeMixed():
            warming.heard(state, event, turn)
        case Ordered():
            orders.ordered(state, event, turn)
        case CancelAsked():
            orders.cancel_asked(state, event, turn)
        case ConfigRead() | ConfigRefused() | ProgramChecked() | ProgramReplaced():
            orders.answered(state, event, turn)
        case AnswersCounted(name) if name in state.pools:
            baking.counted(state.pools[name], event, turn)
        case LogReopened(problem):
            reopen.answered(state, reopen.DAEMON, problem)
        case Started():
            orders.started(state, event, turn)
        case Resumed():
            adoption.adopt(state, event, turn)
        case Tick():
            sweep.tick(state, turn)


def pool_of(event: Event) -> str:
    """The name of the only pool that the event can change at once; "" if there may be more, or none."""
    match event:
        case AnswersCounted():
            return event.pool
        case ZygoteLoaded() | ZygoteFailed() | ZygoteGone() | ZygoteLearned() | CodeMixed():
            return event.generation.pool
        case Ordered():
            return event.order.pool
        case Started() | Resumed() | CancelAsked() | Tick() | LogReopened():
            return ""
        case ConfigRead() | ConfigRefused() | ProgramChecked() | ProgramReplaced():
            return ""
        case _:
            return event.worker.pool
