"""The order to open the logs anew: which processes are told, which have answered, when it is done.

Moves no worker: it waits for nothing else, and nothing waits for it. Pure.
"""

from __future__ import annotations

from srvd.core.actions import ReopenLog, TellWorker, WorkerCommand
from srvd.core.model import ErrorCode, Fault, OpState, Phase
from srvd.core.operations import queue
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Operation, SupervisorState
from srvd.core.turn import Turn

SECONDS = 5.0
"""How long workers may take if the order does not say: opening a file is a matter of microseconds, but a worker whose
threads are all in requests hears nothing."""

DAEMON = "the daemon"

_HEARS = frozenset({Phase.STANDBY, Phase.OPENING, Phase.SERVING, Phase.DRAINING})


def begin(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Tells everybody. One that still boots is told, too – it may just have opened the former file – but its answer is
    not waited for: it may be far from ready."""
    waited = {DAEMON}
    for worker in (worker for pool in state.pools.values() for worker in pool.workers()):
        if worker.phase in _HEARS or worker.phase is Phase.BOOTING:
            turn.do(TellWorker(worker.id, WorkerCommand.REOPEN))
        if worker.phase in _HEARS:
            waited.add(str(worker.id))
    turn.do(ReopenLog(op.id))
    op.unanswered = waited
    op.asked = len(waited) - 1
    if op.deadline == NEVER:
        op.deadline = turn.now + SECONDS


def answered(state: SupervisorState, name: str, problem: str) -> None:
    """Takes the answer of a worker or the daemon: its log is open anew, or why not. A late one changes nothing."""
    for op in state.open_operations:
        if name in op.unanswered:
            op.unanswered.discard(name)
            if problem:
                op.complaints = (*op.complaints, f"{name}: {problem}")


def judge(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Ends the operation when all processes that still live have answered."""
    gone = op.unanswered.intersection(str(worker.id) for worker in turn.moved if worker.phase not in _HEARS)
    op.unanswered -= gone
    op.asked -= len(gone)
    queue.report(op, "reopen", op.asked + 1 - len(op.unanswered), op.asked + 1, turn)
    if op.unanswered:
        return
    if op.complaints:
        text = f"{'; '.join(op.complaints)}; the former file stays in use there"
        queue.end(state, op, OpState.FAILED, turn, Fault(ErrorCode.PARTIAL, text, step="reopen"))
    else:
        workers = "1 worker" if op.asked == 1 else f"{op.asked} workers"
        op.result |= {"reopened": op.asked, "message": f"{workers} and the daemon have reopened their logs"}
        queue.end(state, op, OpState.DONE, turn)


def expire(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Its time is over."""
    silent = sorted(op.unanswered)
    took = turn.now - op.created
    late = f"{', '.join(silent)} did not answer within {took:.1f} s, and will reopen as soon as it hears of it"
    fault = Fault(
        ErrorCode.PARTIAL, "; ".join([*op.complaints, late]), "srvctl workers shows what they are in", "reopen"
    )
    queue.end(state, op, OpState.FAILED, turn, fault)
