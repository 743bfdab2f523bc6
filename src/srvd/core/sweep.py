"""What time does: deadlines that have passed, and generations of which nothing is left.

Decides nothing that the reports would not. Pure.
"""

from __future__ import annotations

from srvd.core import transitions
from srvd.core.lifecycle import GenerationTrigger
from srvd.core.model import OpState, Stage
from srvd.core.operations import baking, execute, probing
from srvd.core.reports import losses, stopped
from srvd.core.reports.zygotes import generation_overdue
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Pool, SupervisorState, Zygote
from srvd.core.turn import Turn

__all__ = ["sweep", "tick"]


def tick(state: SupervisorState, turn: Turn) -> None:
    """Time has passed: waits end, and what is late is overdue."""
    now = turn.now
    for pool in list(state.pools.values()):
        _deadlines(state, pool, turn)
        for backoff in (pool.backoff, pool.repair_backoff):
            if backoff.until <= now:
                backoff.until = -NEVER  # the wait is over; whether an attempt follows is reconcile's to say
        baking.tick(pool, turn)
        if pool.source is not None and pool.source.pace.until <= now:
            pool.source.pace = pool.source.pace._replace(until=-NEVER)
    for op in state.open_operations:
        for part in op.rollouts.values():
            if part.retry_at <= now:
                part.retry_at = -NEVER
        if op.deadline <= now:
            execute.expire(state, op, turn)


def _deadlines(state: SupervisorState, pool: Pool, turn: Turn) -> None:
    """Whatever has passed of the pool's generations and workers by now."""
    now = turn.now
    for generation in list(pool.generations.values()):
        if generation.deadline <= now:
            generation_overdue(state, pool, generation, turn)
        if generation.ask_at <= now:
            probing.ask_again(generation, turn)
        for worker in generation.workers.due(now):
            if worker.wake_at <= now:
                stopped.wake(generation, worker, turn)
            if worker.deadline <= now:
                losses.overdue(pool, generation, worker, turn)


def sweep(state: SupervisorState, pool: Pool, turn: Turn) -> None:
    """Ends generations that have no worker left, and a removed pool with the last of them."""
    source = pool.source
    if pool.removed and source is not None and not source.workers:
        transitions.shift(source, GenerationTrigger.RETIRE)
        pool.active = None
    for generation in list(pool.generations.values()):
        if generation.stage not in (Stage.RETIRING, Stage.FAILED) or generation.workers:
            continue
        transitions.dismiss(generation, turn)
        if generation.zygote is Zygote.GONE:
            transitions.shift(generation, GenerationTrigger.EMPTIED)
            del pool.generations[generation.id.number]
    if pool.removed and not pool.generations:
        busy = any(pool.name in op.rollouts and op.state is not OpState.DONE for op in state.open_operations)
        if not busy:
            state.numbers[pool.name] = (pool.numbers, pool.serials)
            del state.pools[pool.name]
