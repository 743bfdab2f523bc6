"""What each order changes in the state when its operation begins, is cancelled or runs out of time.

Whether it may begin is `queue.py`'s, whether it has come true `completion.py`'s. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.actions import ReadConfig, SealListeners
from srvd.core.event_names import EventName
from srvd.core.lifecycle import GenerationTrigger
from srvd.core.model import (
    ErrorCode,
    ExitReason,
    Fault,
    Headroom,
    Kind,
    OpState,
    Phase,
    PoolSpec,
    Replacement,
    Revision,
    Strategy,
)
from srvd.core.operations import baking, completion, queue, reopen, rollout, upgrade
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Operation, Pace, Pool, SupervisorState, Zygote
from srvd.core.turn import Turn

SCALE_GRACE = 5.0
"""Seconds beyond boot_timeout that a scale, resume or recycle may take for each round of boots."""


def begin(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Starts a queued operation."""
    op.state = OpState.RUNNING
    turn.touch(op)
    order = op.order
    pools = completion.pools_of(state, op)
    match order.kind:
        case Kind.SCALE:
            _begin_scale(state, op, turn)
        case Kind.RELOAD:
            turn.do(ReadConfig(op.id))
        case Kind.ROLLBACK:
            _begin_rollback(state, op, turn)
        case Kind.REPAIR:
            _begin_repair(state, op, turn)
        case Kind.RECYCLE:
            _begin_recycle(op, pools, turn)
        case Kind.PAUSE:
            _hold(state, order.pool, paused=True)
        case Kind.RESUME:
            _hold(state, order.pool, paused=False)
            for pool in pools:
                pool.backoff.clear()
            _default_deadline(op, pools, turn)
        case Kind.REOPEN:
            reopen.begin(state, op, turn)
        case Kind.UPGRADE:
            upgrade.begin(op, turn)
        case Kind.START | Kind.STOP:
            pass


def _hold(state: SupervisorState, name: str, *, paused: bool) -> None:
    """Also a pool that has left: the reload under way may be bringing it back."""
    for pool in state.pools.values():
        if name in ("", pool.name):
            pool.paused = paused


def _default_deadline(op: Operation, pools: list[Pool], turn: Turn) -> None:
    if op.deadline == NEVER and pools:
        op.deadline = turn.now + max(pool.spec.boot_timeout for pool in pools) + SCALE_GRACE


def _begin_scale(state: SupervisorState, op: Operation, turn: Turn) -> None:
    fault = queue.misfit(state, op.order)  # the size may have changed while it waited
    if fault is not None:
        queue.end(state, op, OpState.FAILED, turn, fault)
        return
    pool = state.pools[op.order.pool]
    op.before[pool.name] = pool.override
    size = op.order.size + (pool.desired if op.order.relative else 0)
    pool.override = None if op.order.reset else size
    pool.backoff.clear()
    _default_deadline(op, [pool], turn)


def _begin_rollback(state: SupervisorState, op: Operation, turn: Turn) -> None:
    fault = queue.misfit(state, op.order)  # what is kept may be another one than when it came
    if fault is not None:
        queue.end(state, op, OpState.FAILED, turn, fault)
        return
    for pool in completion.pools_of(state, op):
        if pool.parked is None or (not op.order.to and pool.generations[pool.parked].returned_from):
            continue
        former = pool.generations[pool.parked]
        transitions.shift(former, GenerationTrigger.TRY)
        former.deadline = NEVER
        pool.bake = None
        rollout.begin(
            op, pool, former, Strategy.ROLLING if former.spec.strategy is Strategy.ROLLING else Strategy.BLUE_GREEN
        )


def _begin_repair(state: SupervisorState, op: Operation, turn: Turn) -> None:
    pool = state.pools.get(op.order.pool)
    source = pool.source if pool else None
    if pool is None or source is None or source.zygote is Zygote.UP:
        op.result["message"] = "nothing is left to repair"
        queue.end(state, op, OpState.DONE, turn)
        return
    # One by one: each worker that still serves does so until its successor does, and no second set is needed.
    rollout.begin(op, pool, transitions.load(pool, source.spec, source.revision, turn), Strategy.ROLLING)


def _begin_recycle(op: Operation, pools: list[Pool], turn: Turn) -> None:
    chosen = []
    for pool in pools:
        pool.backoff.clear()
        if pool.source is not None:
            pool.source.pace = Pace()
        for generation, worker in pool.each_worker():
            one = op.order.worker in ("", str(worker.id))
            if one and worker.is_capacity and worker.id.generation == pool.active:
                if worker.stays:
                    generation.workers.replace(worker, Replacement.RECYCLE)
                chosen.append(worker.id)
    op.targets = frozenset(chosen)
    op.left = set(chosen)
    rounds = len(chosen)
    if op.deadline == NEVER and pools:
        op.deadline = turn.now + max(pool.spec.boot_timeout for pool in pools) * max(1, rounds) + SCALE_GRACE


def config_read(state: SupervisorState, op: Operation, revision: Revision, specs: tuple[PoolSpec, ...],
                headroom: dict[str, Headroom], turn: Turn) -> None:  # fmt: skip
    """A reload goes on: each pool it is about gets a generation to be tried."""
    state.revisions.add(revision)
    op.revision = revision
    chosen = [spec for spec in specs if op.order.pool in ("", spec.name)]
    fault = _too_many(state, op, chosen)
    if not chosen:
        fault = Fault(
            ErrorCode.NO_SUCH_POOL, f"the configuration no longer has a pool {op.order.pool!r}; nothing was changed"
        )
    if fault is not None:
        queue.end(state, op, OpState.FAILED, turn, fault)
        return
    for spec in chosen:
        pool = state.pools.get(spec.name)
        if pool is None:
            numbers, serials = state.numbers.pop(spec.name, (0, 0))
            pool = state.pools[spec.name] = Pool(spec, numbers=numbers, serials=serials)
        elif pool.removed:  # it comes back while its last workers still drain
            pool.override, pool.paused = None, False
        pool.backoff.clear()
        strategy = rollout.choose(spec, pool.size(spec), headroom.get(spec.name, Headroom()))
        baking.look_before(pool, turn)
        rollout.begin(op, pool, transitions.load(pool, spec, revision, turn), strategy)


def _too_many(state: SupervisorState, op: Operation, specs: list[PoolSpec]) -> Fault | None:
    """The configuration alone was checked when it was read; sizes that were ordered since count, too."""
    stay = [] if op.order.pool == "" else [pool for pool in state.pools.values() if not pool.removed]
    sizes = {pool.name: pool.desired for pool in stay}
    for spec in specs:
        known = state.pools.get(spec.name)
        kept = None if known is None or known.removed else known.override
        sizes[spec.name] = spec.workers if kept is None else kept
    total = sum(sizes.values())
    if total <= state.limit:
        return None
    text = f"all pools together would have {total} workers, the limit is {state.limit}; nothing was changed"
    return Fault(
        ErrorCode.CONFIG_INVALID, text, "srvctl scale POOL --reset, or raise max_workers and restart", "config"
    )


def fail(state: SupervisorState, op: Operation, fault: Fault, turn: Turn, end_state: OpState = OpState.FAILED) -> None:
    """Before the commit: the trials are abandoned, the former generations never noticed."""
    rollout.abandon(state, op, turn)
    queue.end(state, op, end_state, turn, fault)
    for part in op.rollouts.values():
        pool = state.pools[part.pool]
        if pool.source is None:
            pool.removed = True  # it was to be added; nothing of it stays
        if op.order.kind is Kind.REPAIR:
            backoff.strike(pool.repair_backoff, turn.now, turn.now, part.generation, fault.message)


def is_moot(state: SupervisorState, op: Operation, turn: Turn) -> bool:
    """Ends a repair or rollback whose pool was removed by a reload beside it; it must not bring the pool back."""
    if op.order.kind not in (Kind.REPAIR, Kind.ROLLBACK):
        return False
    gone = [part.pool for part in turn.parts(op) if state.pools[part.pool].removed]
    if not gone:
        return False
    fail(state, op, Fault(ErrorCode.CONFLICT, f"pool {gone[0]} has left the configuration meanwhile"), turn)
    return True


def cancel(state: SupervisorState, op: Operation, actor: str, turn: Turn) -> Fault | None:
    """Takes the operation back if that is still possible; else says why not."""
    if op.state.ended:
        return Fault(ErrorCode.CONFLICT, f"operation {op.id} has ended already ({op.state.value})")
    fault = Fault(ErrorCode.CANCELLED, f"cancelled by {actor}; the former state is in force")
    if op.state is OpState.QUEUED:
        queue.end(state, op, OpState.CANCELLED, turn, fault)
        return None
    match op.order.kind:
        case Kind.SCALE:
            completion.restore(state, op, f"cancelled by {actor}", turn, OpState.CANCELLED)
        case Kind.RECYCLE:
            completion.stop_recycling(state, op, f"cancelled by {actor}", turn, OpState.CANCELLED)
        case Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR if op.state is OpState.RUNNING:
            fail(state, op, fault, turn, OpState.CANCELLED)
        case Kind.UPGRADE if op.state is OpState.RUNNING:
            queue.end(state, op, OpState.CANCELLED, turn, fault)
        case Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR:
            return Fault(
                ErrorCode.CONFLICT,
                f"operation {op.id} has committed",
                "srvctl rollback returns to the former generation",
            )
        case _:
            return Fault(ErrorCode.CONFLICT, f"operation {op.id} ({op.order.kind.value}) cannot be cancelled")
    return None


def expire(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """The operation's time is over."""
    took = f"{turn.now - op.created:.1f} s"
    if op.state is OpState.QUEUED:
        other = queue.held_by(state, op)
        behind = f", waited for operation {other.id} ({queue.describe(other.order)})" if other else ""
        fault = Fault(
            ErrorCode.BUSY, f"not begun after {took}{behind}; nothing was changed", "srvctl op list", "queued"
        )
        queue.end(state, op, OpState.FAILED, turn, fault)
        return
    match op.order.kind:
        case Kind.SCALE:
            pool = state.pools[op.order.pool]
            completion.restore(state, op, f"{pool.serving} of {pool.target} serve after {took}", turn)
        case Kind.RECYCLE:
            completion.stop_recycling(state, op, f"not finished after {took}", turn)
        case Kind.RESUME:
            message = f"not all workers serve after {took}; the pool stays resumed and goes on trying"
            queue.end(state, op, OpState.FAILED, turn, Fault(ErrorCode.PARTIAL, message, "srvctl why"))
        case Kind.REOPEN:
            reopen.expire(state, op, turn)
        case Kind.UPGRADE:
            upgrade.expire(state, op, turn)
        case Kind.STOP:
            stop(state, op, turn, hurry=True)
        case _ if op.state is OpState.RUNNING:
            phase = op.progress[0] or "config"
            fault = Fault(
                ErrorCode.BOOT_FAILED, f"not committed after {took}, still in {phase}; nothing was changed", step=phase
            )
            fail(state, op, fault, turn)
        case _:
            message = f"committed, but not all workers serve after {took}; the new generation stays in force"
            queue.end(state, op, OpState.FAILED, turn, Fault(ErrorCode.PARTIAL, message, "srvctl why", "commit"))


def break_off(state: SupervisorState, reason: str, turn: Turn) -> None:
    """Ends every operation but the stop: the daemon leaves."""
    for op in state.open_operations:
        if op.id != state.stop:
            rollout.abandon(state, op, turn)
            queue.end(state, op, OpState.FAILED, turn, Fault(ErrorCode.SHUTTING_DOWN, reason))


def stop(state: SupervisorState, op: Operation, turn: Turn, *, hurry: bool) -> None:
    """Everybody leaves: what was accepted and what waits in the backlog is answered first, unless in a hurry."""
    first = state.stop is None
    state.stop = op.id
    op.state = OpState.RUNNING
    if first:
        turn.do(SealListeners())
        break_off(state, "the daemon was stopped before this was done", turn)
    for pool in state.pools.values():
        rollout.remove(pool, turn)
        for generation, worker in pool.each_worker():
            if worker.phase in (Phase.KILLED, Phase.CANCELLED):
                continue
            if hurry:
                transitions.kill(generation, worker, ExitReason.STOPPED_NOW, turn)
                continue
            seconds = op.order.timeout or pool.spec.drain_timeout
            if worker.phase is Phase.DRAINING:  # told once more, because the whole server leaves
                seconds = max(0.0, min(seconds, worker.deadline - turn.now))
            transitions.retire(generation, worker, ExitReason.STOPPED, seconds, turn, leaving=True)
    op.deadline = NEVER
    if hurry:
        turn.note(EventName.DAEMON_STOP_HURRIED, "stopping in a hurry: requests in progress are cut off")
