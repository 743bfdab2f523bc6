"""Tells watchers that a pool has become ready or degraded, which no single report of a worker says.

Changes nothing else. The other states of a pool have events where they begin. Pure.
"""

from __future__ import annotations

from srvd.core.event_names import EventName
from srvd.core.model import Kind, OpState, PoolState
from srvd.core.state.model import Pool, SupervisorState
from srvd.core.status.view import pool_state
from srvd.core.turn import Turn

__all__ = ["tell"]

_GROWS = (Kind.START, Kind.SCALE, Kind.RESUME)
"""Orders that ask for workers: while one of them is under way, fewer workers than desired are no news."""


def tell(house: SupervisorState, turn: Turn) -> None:
    """Compares the state of each pool with what watchers know of it."""
    for pool in turn.pools(house):
        state = pool_state(house, pool)
        if state is pool.announced or (state is PoolState.DEGRADED and _is_ordered(house, pool)):
            continue
        pool.announced = state
        serving, why = pool.getting_on, ", its zygote is gone" if pool.is_lost else ""
        text = f"pool {pool.name} is {state.value}: {serving} of {pool.target} serve{why}"
        if state is PoolState.READY:
            turn.note(EventName.POOL_READY, text, pool=pool.name)
        elif state is PoolState.DEGRADED:
            turn.note(EventName.POOL_DEGRADED, text, pool=pool.name, serving=serving, desired=pool.target)


def _is_ordered(house: SupervisorState, pool: Pool) -> bool:
    """Does an operation explain that fewer workers serve? It tells itself how it ends."""
    return any(
        (op.order.kind in _GROWS or op.state is OpState.COMMITTING)
        and op.state is not OpState.QUEUED
        and (pool.name in op.rollouts if op.rollouts else op.order.pool in ("", pool.name))
        for op in house.open_operations
    )
