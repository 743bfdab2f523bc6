"""Tells watchers that a pool has become ready or degraded, which no single report of a worker says.

Changes nothing else. The other states of a pool have events where they begin. Pure.
"""

from __future__ import annotations

from srvd.core.event_names import EventName
from srvd.core.model import Kind, OpState, PoolState
from srvd.core.operations import queue
from srvd.core.state.model import Pool, SupervisorState
from srvd.core.status.view import pool_state
from srvd.core.turn import Turn

__all__ = ["tell"]

_GROWS = (Kind.START, Kind.SCALE, Kind.RESUME)
"""Orders that ask for workers: while one of them is under way, fewer workers than desired are no news."""


def tell(state: SupervisorState, turn: Turn) -> None:
    """Compares the state of each pool with what watchers know of it."""
    for pool in turn.pools(state):
        current = pool_state(state, pool)
        if current is pool.announced or (current is PoolState.DEGRADED and _is_ordered(state, pool)):
            continue
        pool.announced = current
        serving, why = pool.getting_on, ", its zygote is gone" if pool.is_lost else ""
        text = f"pool {pool.name} is {current.value}: {serving} of {pool.target} serve{why}"
        if current is PoolState.READY:
            turn.note(EventName.POOL_READY, text, pool=pool.name)
        elif current is PoolState.DEGRADED:
            turn.note(EventName.POOL_DEGRADED, text, pool=pool.name, serving=serving, desired=pool.target)


def _is_ordered(state: SupervisorState, pool: Pool) -> bool:
    """Does an operation explain that fewer workers serve? It tells itself how it ends."""
    return any(
        (op.order.kind in _GROWS or op.state is OpState.COMMITTING)
        and op.state is not OpState.QUEUED
        and queue.concerns(op, pool.name)
        for op in state.open_operations
    )
