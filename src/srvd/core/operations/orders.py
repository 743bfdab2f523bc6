"""Orders as they come in: refused, joined to an operation or made one; and the answers that operations wait for.

Carries out none but a stop, which waits for no other: the others begin when it is their turn (`settle.py`). Pure.
"""

from __future__ import annotations

from srvd.core import transitions
from srvd.core.actions import DropRevision, Opened, Refused
from srvd.core.events import (
    CancelAsked,
    ConfigRead,
    ConfigRefused,
    Ordered,
    ProgramChecked,
    ProgramReplaced,
    Started,
)
from srvd.core.model import Actor, ErrorCode, Fault, Kind, OpState, Order, Strategy
from srvd.core.operations import execute, queue, rollout, upgrade
from srvd.core.state.model import Pool, SupervisorState
from srvd.core.turn import Turn

__all__ = ["answered", "cancel_asked", "ordered", "started"]


def started(state: SupervisorState, event: Started, turn: Turn) -> None:
    """The start is the first operation: it loads all pools at once."""
    state.revisions.add(event.revision)
    op = queue.enqueue(state, Order(Kind.START), event.actor, turn)
    op.state = OpState.RUNNING
    for spec in event.specs:
        pool = state.pools[spec.name] = Pool(spec)
        rollout.begin(op, pool, transitions.load(pool, spec, event.revision, turn), Strategy.BLUE_GREEN)


def ordered(state: SupervisorState, event: Ordered, turn: Turn) -> None:
    """Answers with the operation that the order has opened or joined, or with the reason why it is refused."""
    ticket, order, actor = event
    fault = queue.check(state, order)
    if fault is not None:
        turn.do(Refused(ticket, fault))
        return
    turn.busy = frozenset(order.busy)
    if order.kind is Kind.STOP:
        _stop(state, ticket, order, actor, turn)
        return
    same = queue.joinable(state, order)
    op = queue.join(same, actor, turn) if same else queue.enqueue(state, order, actor, turn)
    turn.do(Opened(ticket, op.id))


def _stop(state: SupervisorState, ticket: int, order: Order, actor: Actor, turn: Turn) -> None:
    running = state.stop and state.operations.get(state.stop)
    op = queue.join(running, actor, turn) if running else queue.enqueue(state, order, actor, turn)
    turn.do(Opened(ticket, op.id))
    execute.stop(state, op, turn, hurry=bool(running) or order.now)


def cancel_asked(state: SupervisorState, event: CancelAsked, turn: Turn) -> None:
    """Answers in the same way as an order."""
    ticket, op_id, actor = event
    op = state.operations.get(op_id)
    if op is None:
        turn.do(Refused(ticket, Fault(ErrorCode.NO_SUCH_OPERATION, f"there is no operation {op_id}")))
        return
    fault = execute.cancel(state, op, actor.name, turn)
    turn.do(Opened(ticket, op.id) if fault is None else Refused(ticket, fault))


def answered(
    state: SupervisorState, event: ConfigRead | ConfigRefused | ProgramChecked | ProgramReplaced, turn: Turn
) -> None:
    """What an operation asked for has come, perhaps after its end."""
    op = state.operations.get(event.op)
    if op is None or op.state.ended:
        if isinstance(event, ConfigRead):
            turn.do(DropRevision(event.revision))
        return
    match event:
        case ConfigRead(_, revision, specs, headroom, warnings):
            op.warnings = warnings
            execute.config_read(state, op, revision, specs, dict(headroom), turn)
        case ConfigRefused(_, fault):
            queue.end(state, op, OpState.FAILED, turn, fault)
        case ProgramChecked():
            upgrade.checked(state, op, event, turn)
        case ProgramReplaced():
            upgrade.replaced(state, op, event, turn)
