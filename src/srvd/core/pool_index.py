"""What is known of all pools together without a look at each: the next deadline, which configurations are in use.

Follows from the state and is never saved. Pure.
"""

from __future__ import annotations

from srvd.core import backoff
from srvd.core.actions import Adopt, DropRevision
from srvd.core.model import Revision
from srvd.core.operations import baking
from srvd.core.state.deadlines import NEVER, Deadlines
from srvd.core.state.model import Pool, SupervisorState, Zygote
from srvd.core.turn import Turn

__all__ = ["PoolIndex"]


class PoolIndex:
    """Of one state. `update` is called after each turn."""

    def __init__(self, state: SupervisorState) -> None:
        self._state = state
        self._deadlines: Deadlines[str] = Deadlines()
        self._served: dict[str, frozenset[Revision]] = {}  # by pool: configurations that serve
        self._used: dict[str, frozenset[Revision]] = {}  # by pool: configurations of its generations
        for name in state.pools:
            self._enter(name)

    @property
    def deadline(self) -> float:
        """The least of all pools; NEVER if there is none."""
        return self._deadlines.least

    def update(self, turn: Turn) -> None:
        """Follows the pools that may have changed; tells which configurations are in force, and which are unused."""
        names = [turn.pool] if turn.pool else [*self._state.pools, *(self._used.keys() - self._state.pools.keys())]
        changed = [name for name in names if self._enter(name)]
        if changed or not turn.pool:
            self._adopt_and_drop(turn)

    def _enter(self, name: str) -> bool:
        """True if other configurations are in use than before."""
        pool = self._state.pools.get(name)
        former = self._served.pop(name, None), self._used.pop(name, None)
        self._deadlines.put(name, NEVER if pool is None else _deadline(self._state, pool))
        if pool is None:
            return former != (None, None)
        served = [g for number, g in pool.generations.items() if number == pool.active or g.is_accepting]
        self._served[name] = frozenset(generation.revision for generation in served)
        self._used[name] = frozenset(generation.revision for generation in pool.generations.values())
        return former != (self._served[name], self._used[name])

    def _adopt_and_drop(self, turn: Turn) -> None:
        state = self._state
        served = {revision for revisions in self._served.values() for revision in revisions}
        if served and tuple(sorted(served)) != state.adopted and state.stop is None:
            fresh = served.difference(state.adopted)
            state.adopted = tuple(sorted(served))
            # Before workers are told to accept: a listener that rests since another reload has to be heard again first.
            turn.out.insert(0 if fresh else len(turn.out), Adopt(state.adopted))
        used = {revision for revisions in self._used.values() for revision in revisions}
        for revision in sorted(state.revisions - used - set(state.adopted)):
            state.revisions.discard(revision)
            turn.do(DropRevision(revision))


def _deadline(state: SupervisorState, pool: Pool) -> float:
    """When time alone changes something in the pool."""
    due = baking.deadline(pool)
    for generation in pool.generations.values():
        due = min(due, generation.deadline, generation.ask_at, generation.workers.deadline)
    for op in state.open_operations:
        part = op.rollouts.get(pool.name)
        if part is not None:
            due = min(due, *(at for at in (part.retry_at, part.close_by) if at > -NEVER), NEVER)
    source = pool.source
    if source is not None and source.zygote is Zygote.UP and pool.fresh < pool.target:
        due = min(due, *(until for until in (pool.backoff.until, source.pace.until) if until > -NEVER), NEVER)
    if pool.is_lost and pool.repair_backoff.until > -NEVER:
        due = min(due, pool.repair_backoff.until)
    if pool.serving >= pool.target:
        due = min(due, backoff.forgiven_at(pool.backoff))
    if not pool.is_lost:
        due = min(due, backoff.forgiven_at(pool.repair_backoff))
    return due
