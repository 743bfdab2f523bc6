"""The order to upgrade: the new program is asked whether it can take over, then it does; the one that lives tells.

Changes neither desired nor observed state: every operation under way, and every worker, is carried over as
it is. So an upgrade waits for nothing, and nothing waits for it. Pure.
"""

from __future__ import annotations

from srvd.core.actions import CheckProgram, ReplaceProgram
from srvd.core.events import ProgramChecked, ProgramReplaced
from srvd.core.model import ErrorCode, Fault, OpState
from srvd.core.operations import queue
from srvd.core.state.model import Operation, SupervisorState
from srvd.core.turn import Turn

CHECK_SECONDS = 90.0
"""What the self-check may take: longer than its own limit in the daemon, which names what it was at."""

REPLACE_SECONDS = 60.0
"""From the decision to the first word of the program that lives then."""


def begin(op: Operation, turn: Turn) -> None:
    op.deadline = min(op.deadline, turn.now + CHECK_SECONDS)
    queue.report(op, "check", 0, 0, turn)
    turn.do(CheckProgram(op.id))


def checked(state: SupervisorState, op: Operation, event: ProgramChecked, turn: Turn) -> None:
    """The new program has said whether it can take over."""
    op.result |= {"old": event.old, "new": event.new}
    if event.fault is not None:
        queue.end(state, op, OpState.FAILED, turn, event.fault)
    elif op.order.check:
        op.result["message"] = f"srvd {event.new} can take over from {event.old}; nothing was changed"
        queue.end(state, op, OpState.DONE, turn)
    else:
        op.state = OpState.COMMITTING
        op.deadline = turn.now + REPLACE_SECONDS
        queue.report(op, "replace", 0, 0, turn)
        turn.do(ReplaceProgram(op.id))


def replaced(state: SupervisorState, op: Operation, event: ProgramReplaced, turn: Turn) -> None:
    """Said by the program that lives now: the new one, or, with a fault, the former one."""
    if event.fault is not None:
        queue.end(state, op, OpState.FAILED, turn, event.fault)
        return
    alive = sum(worker.pid is not None for pool in state.pools.values() for worker in pool.workers())
    op.result["workers"] = alive
    kept = f"{alive} worker{'s' * (alive != 1)} and all listeners were kept"
    new, old = op.result["new"], op.result["old"]
    later = f"; the workers' part is of {old} until a reload" if alive and new != old else ""
    op.result["message"] = f"srvd {new} runs, {old} did before; {kept}{later}"
    queue.end(state, op, OpState.DONE, turn)


def expire(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Its time is over."""
    step = op.progress[0]
    text = f"not done after {turn.now - op.created:.1f} s, still in {step}; nothing was changed"
    fault = Fault(ErrorCode.LOAD_FAILED, text, "srvd --self-check", step)
    queue.end(state, op, OpState.FAILED, turn, fault)
