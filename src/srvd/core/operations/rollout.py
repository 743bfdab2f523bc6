"""Changing generations as a transaction: canary, staging, commit for all pools of an operation together, bake, return.

Before the commit a failure abandons the trial and the former generation has noticed nothing; after it, a crash loop
while the new generation bakes switches back. Waits for nothing and answers nothing (`queue.py`). Pure.

Theory of operation. A start, reload, rollback or repair gives each of its pools one `Rollout`: a generation on trial
beside the one that serves. The trial goes from stage to stage (`lifecycle.GENERATION`):

    LOADING   its zygote imports the application      a failure: FAILED, nothing has changed
    BOOTING   one worker boots, the canary            "
    PROBING   the canary answers the health path      "
    WARMING   the zygote imports what that took       "
    STAGING   the others boot, up to STANDBY          "
    ACTIVE    all of them accept, old ones drain      a crash loop while it bakes: the former one serves again

No worker accepts before STAGING is over in all pools of the operation: `advance` calls `_commit` when each trial could
commit, and `_commit` moves all of them in one turn. So a reload of two pools is in force in both or in none. A worker
of a trial is no capacity of its pool, and its death is no strike against the pool.

`_commit` only changes which generation is the active one. The workers are moved by `reconcile.py`, as for any other
reason: those of the active generation are opened, and each that serves lets one of another generation leave. That is
an overlap and never a gap, and the same rule brings the former generation back (`go_back`). The former generation is
parked: without workers, its zygote kept for `bake` and `rollback_window`, so that a return takes as long as a fork.
"""

from __future__ import annotations

from srvd.core import transitions
from srvd.core.event_names import EventName
from srvd.core.lifecycle import STAGED, GenerationTrigger
from srvd.core.model import ExitReason, Fault, Headroom, Kind, Phase, PoolSpec, Stage, Strategy
from srvd.core.operations import baking, probing, queue
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, Operation, Pool, Rollout, SupervisorState, Zygote
from srvd.core.turn import Turn

LOSSES = 8
"""Ready workers of a trial that may die before it is abandoned."""

FITS = 0.8
"""Share of the available memory that a second set of workers may take for blue-green."""


def choose(spec: PoolSpec, target: int, headroom: Headroom) -> Strategy:
    """Blue-green while the projected memory fits or nothing is known of it, else rolling."""
    if spec.strategy is not Strategy.AUTO:
        return spec.strategy
    known = headroom.available_bytes > 0 and headroom.worker_bytes > 0
    if known and target * headroom.worker_bytes > FITS * headroom.available_bytes:
        return Strategy.ROLLING
    return Strategy.BLUE_GREEN


def begin(op: Operation, pool: Pool, generation: Generation, strategy: Strategy) -> None:
    op.rollouts[pool.name] = Rollout(pool.name, generation.id.number, strategy)


def advance(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Moves every trial of the operation as far as it goes now; commits when all of them are staged."""
    waiting = [part for part in turn.parts(op) if not part.committed]
    for part in waiting:
        part.staged = _advance_trial(state, op, part, turn)
    if waiting and all(part.staged for part in op.rollouts.values()):
        _commit(state, op, turn)


def _advance_trial(state: SupervisorState, op: Operation, rollout: Rollout, turn: Turn) -> bool:
    """True when this pool could commit."""
    pool = state.pools[rollout.pool]
    trial = pool.generations[rollout.generation]
    first_start = op.order.kind is Kind.START
    if trial.fault is not None:  # it has failed; only the proof is not there yet
        return False
    if trial.stage is Stage.BOOTING:
        # At the first start nothing serves that could be harmed: all boot beside the canary, unless they learn from it.
        together = first_start and not trial.learns
        _fill(pool, trial, max(1, pool.size(trial.spec)) if together else 1, rollout, turn)
        canary = trial.workers.oldest((Phase.STANDBY,), 1)
        if not canary:
            return False
        probing.ask(trial, canary[0], turn)
    if trial.stage is not Stage.STAGING:
        return False
    whole = rollout.strategy is Strategy.BLUE_GREEN
    # The size follows the desired one while it is staged: a scale order during a reload applies to both generations.
    size = max(1, pool.size(trial.spec)) if whole or first_start else 1
    _fill(pool, trial, size, rollout, turn)
    return trial.count(Phase.STANDBY) >= (1 if first_start else size)


def _fill(pool: Pool, trial: Generation, size: int, rollout: Rollout, turn: Turn) -> None:
    missing = size - trial.staged
    may_ask = trial.zygote is Zygote.UP and turn.now >= rollout.retry_at
    count = min(missing, transitions.IN_FLIGHT - trial.count(Phase.ASKED))
    if rollout.refusals:  # after a failure one attempt at a time
        count = min(count, 1 - trial.count(Phase.ASKED))
    for _ in range(count if may_ask else 0):
        transitions.ask(pool, trial, turn)
    for worker in reversed(trial.workers.latest(STAGED, max(0, -missing))):
        transitions.retire(trial, worker, ExitReason.SCALED_DOWN, trial.spec.drain_timeout, turn)


def _commit(state: SupervisorState, op: Operation, turn: Turn) -> None:
    queue.committed(op, turn)
    op.deadline = turn.now + max(
        time_to_serve(state.pools[name], part, wait_bake=op.order.wait_bake) for name, part in op.rollouts.items()
    )
    for rollout in op.rollouts.values():
        pool = state.pools[rollout.pool]
        trial, former = pool.generations[rollout.generation], pool.source
        if pool.parked == trial.id.number:
            pool.parked = None
        transitions.shift(trial, GenerationTrigger.COMMIT)
        trial.deadline = NEVER
        pool.active, pool.spec, pool.bake, pool.removed = trial.id.number, trial.spec, None, False
        pool.taken_back = ""
        pool.backoff.clear()
        if op.order.kind is not Kind.REPAIR:  # a zygote that dies again and again is not loaded at once each time
            pool.repair_backoff.clear()
        rollout.committed, rollout.staged = True, False
        trial.returned_from = False
        if former is not None:
            rollout.former = former.id.number
            former.returned_from = op.order.kind is Kind.ROLLBACK
            _put_aside(op, pool, former, turn)
        turn.note(EventName.GENERATION_ACTIVE, f"generation {trial.id} takes over", generation=str(trial.id))
    if op.order.kind is Kind.RELOAD and not op.order.pool:
        for pool in state.pools.values():
            if pool.name not in op.rollouts and not pool.removed:
                remove(pool, turn)


def time_to_serve(pool: Pool, part: Rollout, *, wait_bake: bool = False) -> float:
    """Seconds after the commit until all of the new generation must serve, and until an order that waits is told."""
    spec = pool.generations[part.generation].spec
    rounds = 2 if part.strategy is Strategy.BLUE_GREEN else pool.size(spec) + 1
    return spec.boot_timeout * max(2, rounds) + (spec.bake if wait_bake else 0.0)


def _put_aside(op: Operation, pool: Pool, former: Generation, turn: Turn) -> None:
    """Parks the former generation for a return, or retires it when its zygote is lost."""
    if former.zygote is not Zygote.UP:
        transitions.shift(former, GenerationTrigger.RETIRE)
        return
    if pool.parked is not None:
        unpark(pool, turn)
    transitions.shift(former, GenerationTrigger.PARK)
    pool.parked = former.id.number
    bake = pool.spec.bake if op.order.kind is Kind.RELOAD else 0.0
    former.deadline = turn.now + bake + pool.spec.rollback_window
    if bake > 0:
        former.deadline += baking.begin(pool, former.id.number, turn)


def unpark(pool: Pool, turn: Turn) -> None:
    """The parked generation is given up."""
    if pool.parked is None:
        return
    parked = pool.generations[pool.parked]
    transitions.shift(parked, GenerationTrigger.RETIRE)
    if not parked.workers:  # else its zygote goes after the last of them, when it has told how they ended
        transitions.dismiss(parked, turn)
    pool.parked = None
    pool.bake = None


def remove(pool: Pool, turn: Turn) -> None:
    """The pool is no longer desired: its workers drain, its zygotes go."""
    pool.removed = True
    unpark(pool, turn)
    source = pool.source
    if source is not None:
        turn.note(EventName.POOL_REMOVED, f"pool {pool.name} leaves", pool=pool.name)


def abandon(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Ends every trial of the operation that has not committed.

    Workers that have been told to accept are never killed here.
    """
    for rollout in op.rollouts.values():
        if rollout.committed:
            continue
        pool = state.pools[rollout.pool]
        trial = pool.generations.get(rollout.generation)
        if trial is None or not trial.is_trial:
            continue
        if pool.parked == trial.id.number:
            pool.parked = None
        transitions.shift(trial, GenerationTrigger.ABANDON)
        for worker in reversed(trial.workers.latest(STAGED, trial.staged)):
            transitions.kill(trial, worker, ExitReason.ABANDONED, turn)
        if not trial.workers:  # else its zygote goes after the last of them, when it has told how they ended
            transitions.dismiss(trial, turn)


def may_return(pool: Pool) -> bool:
    """Is the former generation there to switch back to?"""
    return (
        pool.bake is not None
        and pool.parked == pool.bake.former
        and pool.generations[pool.bake.former].stage is Stage.PARKED
        and pool.generations[pool.bake.former].zygote is Zygote.UP
    )


def go_back(pool: Pool, fault: Fault, turn: Turn) -> None:
    """The former generation serves again, at once and without a canary: it did a moment ago."""
    bad = pool.source
    assert pool.bake is not None
    assert bad is not None
    former = pool.generations[pool.bake.former]
    transitions.shift(former, GenerationTrigger.RESTORE)
    transitions.shift(bad, GenerationTrigger.RETIRE)
    former.deadline = NEVER
    pool.active, pool.spec, pool.parked, pool.bake = former.id.number, former.spec, None, None
    pool.backoff.clear()
    pool.taken_back = f"{bad.id} was taken back: {fault.message}"
    text = f"generation {bad.id} is taken back: {fault.message}; {former.id} serves again"
    turn.note(EventName.GENERATION_TAKEN_BACK, text, generation=str(bad.id), former=str(former.id))
