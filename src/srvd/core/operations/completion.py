"""When an operation has come true, when it cannot any more, and how far it is.

Level-triggered, as `reconcile.py`: it looks at the observed state and nothing else, so an answer is always true. Pure.
"""

from __future__ import annotations

from srvd.core.backoff import RETURN_STRIKES, is_hopeless
from srvd.core.lifecycle import CAPACITY
from srvd.core.model import ErrorCode, Fault, Kind, OpState, Phase, Replacement, Stage
from srvd.core.operations import baking, outcome, queue, reopen, rollout
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Operation, Pool, Rollout, SupervisorState, Zygote
from srvd.core.status.view import log_problem
from srvd.core.turn import Turn

CLOSE_SECONDS = 2.0
"""For so long a reload that is otherwise done waits until each former worker has stopped accepting. That takes a turn
of the worker's loop; an application that holds the interpreter lock can delay it.
"""

NAMED = 8
"""Most workers that an answer names because they may still accept; there may be thousands."""

_TRIAL_PHASES = {
    Stage.LOADING: "load",
    Stage.BOOTING: "canary",
    Stage.PROBING: "probe",
    Stage.WARMING: "warm",
    Stage.STAGING: "stage",
}


def judge(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """Reports the operation's progress and ends it if its goal is reached or lost."""
    if op.state not in (OpState.RUNNING, OpState.COMMITTING):
        return
    match op.order.kind:
        case Kind.START | Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR:
            _judge_rollouts(state, op, turn)
        case Kind.SCALE | Kind.RECYCLE | Kind.PAUSE | Kind.RESUME if op.order.pool and not pools_of(state, op):
            fault = Fault(ErrorCode.CONFLICT, f"pool {op.order.pool} has left the configuration meanwhile")
            queue.end(state, op, OpState.FAILED, turn, fault)
        case Kind.SCALE:
            _judge_scale(state, op, turn)
        case Kind.RECYCLE:
            _judge_recycle(state, op, turn)
        case Kind.PAUSE:
            _judge_pause(state, op, turn)
        case Kind.RESUME:
            _judge_resume(state, op, turn)
        case Kind.REOPEN:
            reopen.judge(state, op, turn)
        case Kind.STOP:
            _judge_stop(state, op, turn)


def pools_of(state: SupervisorState, op: Operation) -> list[Pool]:
    """The pools the operation is about; a pool that has left the configuration since is none of them."""
    names = [op.order.pool] if op.order.pool else list(state.pools)
    return [pool for name in names if (pool := state.pools.get(name)) is not None and not pool.removed]


def is_full(pool: Pool) -> bool:
    """The desired number serves, and no old one is left to be replaced.

    One that is worn counts until its successor does: with a small max_requests there always is one.
    """
    if pool.source is None:
        return pool.old == pool.target == 0
    workers = pool.source.workers
    serving = workers.count((Phase.SERVING,), (Replacement.NONE, Replacement.EXPIRED))
    return pool.old == workers.count(CAPACITY, (Replacement.EXPIRED,)) and pool.fresh <= pool.target <= serving


def _judge_rollouts(state: SupervisorState, op: Operation, turn: Turn) -> None:
    fault = _overtaken(state, op, turn)
    if fault is not None:
        queue.end(state, op, OpState.FAILED, turn, fault)
        return
    for part in turn.parts(op):
        finished = part.committed and _has_taken_over(state.pools[part.pool], part, turn)
        turn.unsettled |= finished is not part.finished
        part.finished = finished
    finished = bool(op.rollouts) and all(part.finished for part in op.rollouts.values())
    baking = finished and any(state.pools[name].bake is not None for name in op.rollouts)
    if finished and op.order.wait_bake and (baking or op.progress[0] == "bake"):
        queue.report(op, "bake", 0, 0, turn)
    else:
        queue.report(op, *_progress_of_rollouts(state, op), turn)
    if not finished or (op.order.wait_bake and baking):
        fault = _lost(state, op, turn)
        if fault is not None:
            queue.end(state, op, OpState.FAILED, turn, fault)
        return
    _rollouts_done(state, op, turn, baking=baking)


def _rollouts_done(state: SupervisorState, op: Operation, turn: Turn, *, baking: bool) -> None:
    for part in op.rollouts.values():
        op.result["generation"] = part.generation
        op.result["serving"] = state.pools[part.pool].target
        if part.former:
            op.result["instead_of"] = f"{part.pool}@{part.former}"
    pools = [state.pools[name] for name in op.rollouts]
    op.result["message"] = outcome.of_rollouts(state, op)
    op.result["probed"] = not outcome.not_probed(*pools)
    op.result["baking"] = baking
    op.warnings += _asides(pools)
    queue.end(state, op, OpState.DONE, turn)


def _overtaken(state: SupervisorState, op: Operation, turn: Turn) -> Fault | None:
    """Why the operation cannot come true: another one has changed the generation of a pool since it committed."""
    for part in turn.parts(op):
        pool = state.pools[part.pool]
        if part.committed and pool.active != part.generation:
            now = f"{pool.source.id} is in force" if pool.source is not None else "it has left the configuration"
            text = f"another generation of {pool.name} has taken over meanwhile; {now}"
            return Fault(ErrorCode.CONFLICT, text, "srvctl history")
    return None


def _lost(state: SupervisorState, op: Operation, turn: Turn) -> Fault | None:
    """Why nothing more comes of the operation for now: a new generation must be loaded anew first."""
    for part in turn.parts(op):
        if part.committed and state.pools[part.pool].is_lost:
            name = f"{part.pool}@{part.generation}"
            text = f"the zygote of {name} died during the change-over; {name} stays in force and is loaded anew"
            return Fault(ErrorCode.PARTIAL, text, "srvctl why", "commit", part.pool)
    return None


def _progress_of_rollouts(state: SupervisorState, op: Operation) -> tuple[str, int, int]:
    """The step of the first pool that is not finished."""
    parts = list(op.rollouts.values())
    if not parts:
        return "config", 0, 0
    part = next((part for part in parts if not part.finished), parts[-1])
    return _rollout_progress(state.pools[part.pool], part)


def _has_taken_over(pool: Pool, part: Rollout, turn: Turn) -> bool:
    """Whether a client that comes after the answer meets the new generation: all of its workers serve, and each former
    worker has closed, or was waited for in vain.
    """
    if not is_full(pool):
        part.close_by = NEVER
        return False
    if not _not_closed(pool) or part.close_by <= turn.now:
        part.close_by = -NEVER
    elif part.close_by == NEVER:
        part.close_by = turn.now + CLOSE_SECONDS
    return part.close_by == -NEVER


def _not_closed(pool: Pool) -> int:
    """How many workers of former generations drain, and have not said that they accept no more."""
    return sum(one.workers.not_closed for number, one in pool.generations.items() if number != pool.active)


def _asides(pools: list[Pool]) -> tuple[str, ...]:
    """What the answer says beside what came true."""
    problems = [f"{pool.name}: {problem}" for pool in pools if (problem := log_problem(pool))]
    former = [one for pool in pools for number, one in pool.generations.items() if number != pool.active]
    late = [w for one in former for w in one.workers.values() if w.phase is Phase.DRAINING and not w.closed]
    named = [f"{w.id} of the former generation is busy, and may still accept a client" for w in late[:NAMED]]
    more = [f"and so may {len(late) - NAMED} more"] if len(late) > NAMED else []
    return (*problems, *named, *more)


def _rollout_progress(pool: Pool, part: Rollout) -> tuple[str, int, int]:
    generation = pool.generations.get(part.generation)
    if generation is None:
        return "commit", 0, 0
    if not part.committed:
        size = max(1, pool.size(generation.spec)) if generation.stage is Stage.STAGING else 1
        return _TRIAL_PHASES.get(generation.stage, "load"), min(generation.count(Phase.STANDBY), size), size
    return "commit", generation.count(Phase.SERVING), pool.target


def _judge_scale(state: SupervisorState, op: Operation, turn: Turn) -> None:
    pool = state.pools[op.order.pool]
    fresh, old, serving = pool.fresh, pool.old, pool.serving
    queue.report(op, "scale", serving, pool.target, turn)
    if serving >= pool.target and fresh <= pool.target and (old or fresh == pool.target):
        op.result |= {"desired": pool.desired, "serving": serving, "configured": pool.spec.workers}
        op.result["message"] = outcome.of_scale(pool, op.before[pool.name])
        queue.end(state, op, OpState.DONE, turn)
    elif is_hopeless(pool.backoff):
        restore(state, op, f"{pool.backoff.reason}; {serving} of {pool.target} serve", turn)


def restore(
    state: SupervisorState, op: Operation, reason: str, turn: Turn, end_state: OpState = OpState.FAILED
) -> None:
    """The scale could not be made true: the former size is in force again, and the answer says why."""
    pool = state.pools[op.order.pool]
    pool.override = op.before[pool.name]
    pool.backoff.clear()
    code = ErrorCode.CANCELLED if end_state is OpState.CANCELLED else ErrorCode.BOOT_FAILED
    fault = Fault(code, f"{reason}; back to {pool.desired}", "srvctl why", "scale", pool.name, _proof([pool]))
    queue.end(state, op, end_state, turn, fault)


def _judge_recycle(state: SupervisorState, op: Operation, turn: Turn) -> None:
    pools = pools_of(state, op)
    op.left.difference_update(worker.id for worker in turn.moved if not worker.is_capacity)
    queue.report(op, "recycle", len(op.targets) - len(op.left), len(op.targets), turn)
    if not op.left and all(is_full(pool) for pool in pools):
        said = (f"{len(op.targets)} recycled", *map(outcome.from_disk, pools))
        op.result |= {"recycled": len(op.targets), "message": "; ".join(filter(None, said))}
        queue.end(state, op, OpState.DONE, turn)
    elif any(is_hopeless(pool.backoff) for pool in pools):
        stop_recycling(state, op, _reason(pools), turn)
    elif any(pool.is_lost for pool in pools):  # it is loaded anew as soon as this no longer stands in its way
        stop_recycling(state, op, "the zygote died", turn)


def stop_recycling(
    state: SupervisorState, op: Operation, reason: str, turn: Turn, end_state: OpState = OpState.FAILED
) -> None:
    """Ends a recycle; the workers that have not been replaced yet stay."""
    kept = 0
    pools = pools_of(state, op)
    for pool in pools:
        for generation, worker in pool.each_worker():
            if worker.id in op.targets and worker.replacement is Replacement.RECYCLE and worker.is_capacity:
                generation.workers.replace(worker, Replacement.NONE)
                kept += 1
    done = len(op.targets) - kept
    code = ErrorCode.PARTIAL if done else ErrorCode.BOOT_FAILED
    code = ErrorCode.CANCELLED if end_state is OpState.CANCELLED else code
    text = f"{reason}; {done} recycled, {kept} kept"
    fault = Fault(code, text, "srvctl why", "recycle", op.order.pool, _proof(pools))
    queue.end(state, op, end_state, turn, fault)


def _judge_pause(state: SupervisorState, op: Operation, turn: Turn) -> None:
    left = sum(pool.fresh + pool.old for pool in pools_of(state, op))
    queue.report(op, "drain", max(0, op.progress[2] - left), max(op.progress[2], left), turn)
    if left == 0:
        op.result["message"] = "paused; connections wait in the backlog"
        queue.end(state, op, OpState.DONE, turn)


def _judge_resume(state: SupervisorState, op: Operation, turn: Turn) -> None:
    pools = pools_of(state, op)
    serving, target = sum(pool.serving for pool in pools), sum(pool.target for pool in pools)
    queue.report(op, "resume", serving, target, turn)
    if all(pool.serving >= pool.target for pool in pools):
        op.result["message"] = f"{serving} serving"
        queue.end(state, op, OpState.DONE, turn)
    elif any(is_hopeless(pool.backoff) for pool in pools):
        fault = Fault(ErrorCode.CRASHING, f"{_reason(pools)}; {serving} of {target} serve", "srvctl why")
        queue.end(state, op, OpState.FAILED, turn, fault)


def _judge_stop(state: SupervisorState, op: Operation, turn: Turn) -> None:
    left = sum(len(g.workers) for pool in state.pools.values() for g in pool.generations.values())
    queue.report(op, "drain", max(0, op.progress[2] - left), max(op.progress[2], left), turn)
    if not state.pools:
        op.result["message"] = "stopped"
        queue.end(state, op, OpState.DONE, turn)


def bake_is_spoiled(state: SupervisorState, pool: Pool) -> str:
    """Why the generation that bakes must be taken back, or ""."""
    if not rollout.may_return(pool) or pool.bake is None:
        return ""
    committing = any(
        pool.name in op.rollouts and op.state is OpState.COMMITTING and not op.rollouts[pool.name].finished
        for op in state.open_operations
    )
    if pool.backoff.strikes >= RETURN_STRIKES - committing:
        return pool.backoff.reason
    if worse := baking.spoiled(pool):
        return worse
    deaths = pool.bake.deaths + pool.backoff.strikes
    if deaths >= max(RETURN_STRIKES, pool.target):
        return f"{deaths} of its workers died while it baked"
    source = pool.source
    if committing and source is not None and source.zygote in (Zygote.GONE, Zygote.LEAVING):
        return "its zygote died during the change-over"
    return ""


def _reason(pools: list[Pool]) -> str:
    return next((pool.backoff.reason for pool in pools if is_hopeless(pool.backoff)), "")


def _proof(pools: list[Pool]) -> str:
    """What the last process that was never ready has left: its traceback, or what it wrote; "" if there is none."""
    deaths = (death for pool in pools for death in reversed(pool.deaths) if not death.ready)
    return next((death.traceback or death.death.stderr for death in deaths), "")
