"""Operations as objects: how an order is checked, joined, queued, let run, and how its end is recorded.

What an order changes is in `execute.py`, when it has come true in `completion.py`. Pure.
"""

from __future__ import annotations

from srvd.core.actions import Ended, Progress
from srvd.core.event_names import EventName
from srvd.core.model import Actor, ErrorCode, Fault, Kind, OpId, OpState, Order
from srvd.core.state.model import Operation, Step, SupervisorState
from srvd.core.turn import Turn

_ASPECTS = {
    Kind.START: "generation",
    Kind.RELOAD: "generation",
    Kind.ROLLBACK: "generation",
    Kind.REPAIR: "generation",
    Kind.RECYCLE: "generation",
    Kind.SCALE: "size",
    Kind.PAUSE: "size",
    Kind.RESUME: "size",
    Kind.REOPEN: "logs",
    Kind.UPGRADE: "program",
}
"""What an order changes of a pool. Operations on one aspect of one pool wait for each other; aspects and pools run in
parallel. Stop never waits."""

_ENDS = {
    OpState.DONE: EventName.OPERATION_DONE,
    OpState.FAILED: EventName.OPERATION_FAILED,
    OpState.ROLLED_BACK: EventName.OPERATION_ROLLED_BACK,
    OpState.CANCELLED: EventName.OPERATION_CANCELLED,
}

QUEUE = 64
"""Operations that may wait or run at a time; one more is refused as busy."""


def check(state: SupervisorState, order: Order) -> Fault | None:
    """Why the order cannot be taken now, if so; nothing has changed then."""
    if (state.stop is not None or state.doomed is not None) and order.kind is not Kind.STOP:
        return Fault(ErrorCode.SHUTTING_DOWN, "the daemon is stopping; nothing was changed")
    if len(state.open_operations) >= QUEUE and order.kind is not Kind.STOP:
        return Fault(ErrorCode.BUSY, f"{QUEUE} operations are under way; try again when one has ended")
    return misfit(state, order)


def misfit(state: SupervisorState, order: Order) -> Fault | None:
    """Why the order does not fit what is there, if so."""
    if order.pool and order.pool not in state.pools:
        known = ", ".join(state.pools)
        return Fault(ErrorCode.NO_SUCH_POOL, f"there is no pool {order.pool!r}; nothing was changed", f"pools: {known}")
    match order.kind:
        case Kind.SCALE:
            return _check_scale(state, order)
        case Kind.RECYCLE if order.worker:
            if not any(str(w.id) == order.worker and w.is_capacity for p in state.pools.values() for w in p.workers()):
                return Fault(
                    ErrorCode.NO_SUCH_WORKER, f"there is no worker {order.worker!r} that serves; nothing was changed"
                )
        case Kind.UPGRADE if not state.started:
            return Fault(
                ErrorCode.BUSY, "the daemon is still starting; nothing was changed", "try again when it is ready"
            )
        case Kind.ROLLBACK:
            return _check_rollback(state, order)
        case _:
            pass
    return None


def _check_rollback(state: SupervisorState, order: Order) -> Fault | None:
    pools = [state.pools[order.pool]] if order.pool else list(state.pools.values())
    kept = [pool.generations[pool.parked] for pool in pools if pool.parked is not None]
    if not kept:
        return Fault(ErrorCode.CONFLICT, "no former generation is kept to roll back to; nothing was changed",
                     "a generation is kept for rollback_window after a reload")  # fmt: skip
    if order.to and order.to not in map(str, (generation.id for generation in kept)):
        text = f"{order.to} is not kept to roll back to; nothing was changed"
        return Fault(ErrorCode.CONFLICT, text, f"kept: {', '.join(str(generation.id) for generation in kept)}")
    if not order.to and all(generation.returned_from for generation in kept):
        former, serves = kept[0].id, state.pools[kept[0].id.pool].source
        now = f"{serves.id} serves, and " if serves is not None else ""
        text = f"{now}all that is kept is {former}, which the last rollback went back from; nothing was changed"
        return Fault(
            ErrorCode.CONFLICT, text, f"if it is meant all the same: srvctl rollback {former.pool} --to {former}"
        )
    return None


def _check_scale(state: SupervisorState, order: Order) -> Fault | None:
    if not order.pool:
        return Fault(
            ErrorCode.BAD_ARGS, "say which pool to scale; nothing was changed", f"pools: {', '.join(state.pools)}"
        )
    if order.reset:
        return None
    size = order.size + (state.pools[order.pool].desired if order.relative else 0)
    most = state.limit - sum(pool.desired for name, pool in state.pools.items() if name != order.pool)
    if not 0 <= size <= most:
        text = f"pool {order.pool} cannot have {size} workers (0 to {most}); nothing was changed"
        return Fault(ErrorCode.BAD_ARGS, text, "max_workers limits all pools together" if size > most else "")
    return None


def joinable(state: SupervisorState, order: Order) -> Operation | None:
    """The identical order under way, unless a later one is on the same aspect: `pause, resume` must not join an
    earlier `pause`. A relative scale never joins: each of six `+1` counts; nor a reopen, for files may have been moved
    since. A reload joins only one that waits: one that has begun may have read what is on disk before it changed, and
    "done" would be said of a release that was never loaded.
    """
    if order.kind is Kind.REOPEN or (order.kind is Kind.SCALE and order.relative):
        return None
    rivals = [op for op in state.open_operations if _conflict(op.order, order) and op.order.kind is not Kind.REPAIR]
    last = rivals[-1] if rivals else None
    if last is None or last.order._replace(busy=()) != order._replace(busy=()):
        return None
    return None if order.kind is Kind.RELOAD and last.state is not OpState.QUEUED else last


def _conflict(one: Order, other: Order) -> bool:
    """Must the later of the two wait for the earlier?"""
    same_aspect = _ASPECTS.get(one.kind) == _ASPECTS.get(other.kind)
    return same_aspect and ("" in (one.pool, other.pool) or one.pool == other.pool)


def concerns(op: Operation, pool: str) -> bool:
    """Is the operation about this pool? One that has not chosen its pools may be about any that its order names."""
    return pool in op.rollouts if op.rollouts else op.order.pool in ("", pool)


def enqueue(state: SupervisorState, order: Order, actor: Actor, turn: Turn) -> Operation:
    state.count += 1
    op = Operation(OpId(state.count), order, actor, turn.now)
    if order.timeout > 0:  # from now on: the answer does not come later because others were first
        op.deadline = turn.now + order.timeout
    state.operations[op.id] = op
    turn.touch(op)
    op.timeline.append(Step(turn.now, "queued"))
    text = f"operation {op.id}: {describe(order)}, asked by {actor}"
    turn.note(EventName.OPERATION_ASKED, text, op=op.id, kind=order.kind.value, actor=actor.name)
    return op


def join(op: Operation, actor: Actor, turn: Turn) -> Operation:
    """Logs that a second client has given the same order; the operation stays one."""
    text = f"operation {op.id}: {describe(op.order)}, asked by {actor} as well"
    turn.note(EventName.OPERATION_JOINED, text, op=op.id, kind=op.order.kind.value, actor=actor.name)
    return op


def runnable(state: SupervisorState) -> Operation | None:
    """The first queued operation that neither one under way nor one that came before it holds back."""
    rivals = [op.order for op in state.open_operations if op.state is not OpState.QUEUED]
    for op in state.open_operations:
        if op.state is OpState.QUEUED:
            if not any(_conflict(order, op.order) for order in rivals):
                return op
            rivals.append(op.order)
    return None


def held_by(state: SupervisorState, op: Operation) -> Operation | None:
    """Returns the first operation that a queued one waits for."""
    for other in state.open_operations:
        first = other.state is not OpState.QUEUED or other.id < op.id
        if other is not op and first and _conflict(other.order, op.order):
            return other
    return None


def committed(op: Operation, turn: Turn) -> None:
    """Records the commit: from here on the new generation is the one that serves."""
    op.state = OpState.COMMITTING
    turn.touch(op)
    text = f"operation {op.id}: {describe(op.order)}: committed"
    turn.note(EventName.OPERATION_COMMITTED, text, op=op.id, kind=op.order.kind.value)


def report(op: Operation, phase: str, done: int, total: int, turn: Turn) -> None:
    """Tells the watchers of the operation where it is, if that has changed."""
    if op.progress == (phase, done, total):
        return
    if op.progress[0] != phase:
        op.timeline.append(Step(turn.now, phase))
    op.progress = (phase, done, total)
    turn.do(Progress(op.id, phase, done, total))


def end(state: SupervisorState, op: Operation, end_state: OpState, turn: Turn, fault: Fault | None = None) -> None:
    """Records the end; the answer to each client that waits follows from it."""
    state.operations.end(op, end_state, turn.now)
    turn.touch(op)
    op.fault = fault
    op.desired = {name: pool.target for name, pool in state.pools.items()}
    message = fault.message if fault else str(op.result.get("message", ""))
    op.timeline.append(Step(turn.now, end_state.value, message))
    how = end_state.value.replace("_", " ")
    text = f"operation {op.id}: {describe(op.order)}: {how}{': ' if message else ''}{message}"
    turn.note(_ENDS[end_state], text, op=op.id, kind=op.order.kind.value, state=end_state.value)
    turn.do(Ended(op.id))


def describe(order: Order) -> str:
    """The order as a person would say it."""
    words = [order.kind.value]
    if order.pool:
        words.append(order.pool)
    if order.kind is Kind.SCALE:
        words.append("reset" if order.reset else f"by {order.size:+d}" if order.relative else f"to {order.size}")
    if order.worker:
        words.append(order.worker)
    if order.to:
        words.append(f"to {order.to}")
    if order.now:
        words.append("now")
    if order.check:
        words.append("check")
    return " ".join(words)
