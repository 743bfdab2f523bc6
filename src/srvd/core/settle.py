"""After each event: moves the observed state towards the desired one, as far as it goes now.

Looks at what is, not at what happened; and only at pools that may have changed, since the others have been settled
before. Enters no event (`supervisor.py`). Pure.
"""

from __future__ import annotations

from srvd.core import backoff, sweep, transitions
from srvd.core.actions import Exit
from srvd.core.event_names import EventName
from srvd.core.model import Actor, ErrorCode, ExitReason, Fault, Kind, OpId, OpState, Order, Phase, Strategy
from srvd.core.operations import baking, completion, execute, queue, rollout
from srvd.core.reconcile import reconcile
from srvd.core.state.model import Operation, Pool, SupervisorState
from srvd.core.turn import Turn

__all__ = ["settle"]

SELF = Actor(-1, 0, "srvd")
"""The daemon as the actor of its own decisions."""


def settle(state: SupervisorState, turn: Turn) -> None:
    """Repeats while operations begin or end on the way."""
    for _ in range(2 * queue.QUEUE):  # a full queue may begin and end in one turn
        before = state.count, len(state.open_operations)
        turn.unsettled = False
        _settle_once(state, turn)
        start = state.operations.get(OpId(1))
        if start is not None and start.state.ended and not state.started:
            state.started = True
            _start_ended(state, start, turn)
            continue
        begun = queue.runnable(state)
        if begun is not None:
            execute.begin(state, begun, turn)
        elif before == (state.count, len(state.open_operations)) and not turn.unsettled:
            break
    if not state.pools and state.doomed is not None:
        turn.do(Exit(1, _words(state.doomed)))
    elif not state.pools and state.stop is not None:
        turn.do(Exit(0))


def _settle_once(state: SupervisorState, turn: Turn) -> None:
    for op in state.open_operations:
        if op.state in (OpState.RUNNING, OpState.COMMITTING) and not execute.is_moot(state, op, turn):
            rollout.advance(state, op, turn)
    for pool in turn.pools(state):
        _guard(state, pool, turn)
        reconcile(pool, turn)
        sweep.sweep(state, pool, turn)
    for op in state.open_operations:
        completion.judge(state, op, turn)


def _guard(state: SupervisorState, pool: Pool, turn: Turn) -> None:
    """Takes back a generation that spoils its bake; has a lost zygote loaded anew."""
    reason = completion.bake_is_spoiled(state, pool)
    if reason:
        _go_back(state, pool, reason, turn)
    if pool.is_lost and turn.now >= pool.repair_backoff.until and not _is_changing(state, pool):
        # At once: what waits in the queue may wait for something else than this pool.
        repair = queue.enqueue(state, Order(Kind.REPAIR, pool.name), SELF, turn)
        execute.begin(state, repair, turn)
    if pool.serving >= pool.target and backoff.forgiven_at(pool.backoff) <= turn.now:
        if backoff.is_crashing(pool.backoff):
            turn.note(EventName.POOL_RECOVERED, f"pool {pool.name} is no longer crashing", pool=pool.name)
        pool.backoff.clear()
    if not pool.is_lost and backoff.forgiven_at(pool.repair_backoff) <= turn.now:
        pool.repair_backoff.clear()


def _is_changing(state: SupervisorState, pool: Pool) -> bool:
    """Is an operation under way that replaces its workers?"""
    return any(
        op.order.kind in (Kind.START, Kind.RELOAD, Kind.ROLLBACK, Kind.REPAIR, Kind.RECYCLE)
        and queue.concerns(op, pool.name)
        and op.state is not OpState.QUEUED
        for op in state.open_operations
    )


def _go_back(state: SupervisorState, pool: Pool, reason: str, turn: Turn) -> None:
    died = not baking.spoiled(pool)
    deaths = [d.traceback or d.death.stderr for d in pool.deaths if died]
    proof = next(filter(None, reversed(deaths)), "")
    hint = "srvctl why" if died else "what the application has logged of its errors; bake_errors says how many may be"
    fault = Fault(
        ErrorCode.ROLLED_BACK, f"{reason}; the former generation serves again", hint, "bake", pool.name, proof
    )
    op = next((o for o in state.open_operations if pool.name in o.rollouts and o.state is OpState.COMMITTING), None)
    bad = pool.active or 0
    names = [pool.name] if op is None else list(op.rollouts)
    for name in names:
        other = state.pools[name]
        if rollout.may_return(other):
            rollout.go_back(other, fault, turn)
    if op is not None:
        queue.end(state, op, OpState.ROLLED_BACK, turn, fault)
    # What follows is an operation of its own: its end tells when the former generation is whole again.
    back = queue.enqueue(state, Order(Kind.ROLLBACK, pool.name), SELF, turn)
    back.state = OpState.COMMITTING
    assert pool.active is not None
    rollout.begin(back, pool, pool.generations[pool.active], Strategy.ROLLING)
    back.rollouts[pool.name].committed = True
    back.rollouts[pool.name].former = bad
    back.deadline = turn.now + rollout.time_to_serve(pool, back.rollouts[pool.name])


def _start_ended(state: SupervisorState, op: Operation, turn: Turn) -> None:
    if op.state is OpState.DONE:
        turn.note(EventName.DAEMON_READY, f"ready: {op.result['message']}")
    elif state.stop is None and not op.committed:
        state.doomed = op.fault
        execute.break_off(state, "the daemon could not start and leaves", turn)
        for pool in state.pools.values():
            rollout.remove(pool, turn)
            for generation, worker in pool.each_worker():
                if worker.phase not in (Phase.KILLED, Phase.CANCELLED):
                    transitions.kill(generation, worker, ExitReason.START_FAILED, turn)


def _words(fault: Fault) -> str:
    """The text of a failed start. It is all that an operator gets, since no daemon is left to ask."""
    hint = f"hint: {fault.hint}" if fault.hint and "srvctl" not in fault.hint else ""
    return "\n".join(part.strip("\n") for part in (fault.message, fault.traceback, hint) if part)
