"""The observed state as plain maps, for status, workers, why, history: what a person or a script is shown of the core.

Adds nothing that was measured (memory, requests): that is the daemon's. Times are monotonic; the daemon turns
them into dates. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from srvd.core import backoff
from srvd.core.model import ErrorCode, Fault, Kind, OpState, Phase, PoolState
from srvd.core.operations import outcome, queue, warming
from srvd.core.state.model import DeathRecord, Operation, Pool, SupervisorState, Zygote
from srvd.core.state.workers import Worker
from srvd.ids import GenerationId

Map = dict[str, Any]

_MENDED = "; it has been loaded anew"
"""What became of a trouble with the zygote that is over, and is still remembered."""


def pool_state(state: SupervisorState, pool: Pool) -> PoolState:
    if pool.removed or state.stop is not None:
        return PoolState.STOPPING
    if pool.source is None:
        return PoolState.STARTING
    if backoff.is_crashing(pool.backoff):
        return PoolState.CRASHING
    if pool.paused:
        return PoolState.PAUSED
    whole = pool.getting_on >= pool.target and pool.source.zygote is Zygote.UP
    if whole:
        return PoolState.READY
    return PoolState.DEGRADED if state.started else PoolState.STARTING


def pool_map(state: SupervisorState, pool: Pool) -> Map:
    """A pool without its workers."""
    phases = [w.phase for w in pool.workers()]
    source = pool.source
    current = pool_state(state, pool)
    return {
        "name": pool.name,
        "kind": pool.spec.kind,
        "state": current.value,
        "generation": source.id.number if source else 0,
        "former": pool.parked,
        "preloaded": bool(source and source.preloaded),
        "folder": source.folder if source else "",
        "zygote": source.zygote.value if source else "loading",
        "desired": pool.desired,
        "configured": pool.spec.workers,
        "override": pool.override,
        "paused": pool.paused,
        "serving": phases.count(Phase.SERVING),
        "booting": sum(phase in (Phase.ASKED, Phase.BOOTING, Phase.STANDBY, Phase.OPENING) for phase in phases),
        "draining": sum(phase in (Phase.DRAINING, Phase.KILLED, Phase.CANCELLED) for phase in phases),
        "restarts": pool.restarts,
        "strikes": pool.backoff.strikes,
        "mixed": source.mixed if source else "",
        "notes": outcome.notes(pool),
        "trouble": pool.backoff.reason
        or (pool.repair_backoff.reason and pool.repair_backoff.reason + (_MENDED if current is PoolState.READY else ""))
        or (source.memory_policy.reason or source.pace.reason if source else ""),
    }


def workers(pool: Pool) -> Iterator[Worker]:
    """Those that have a pid, in order of age."""
    return (w for w in sorted(pool.workers(), key=lambda w: w.id.serial) if w.pid is not None)


def worker_map(worker: Worker, now: float) -> Map:
    return {
        "id": str(worker.id),
        "pid": worker.pid,
        "state": worker.phase.value,
        "generation": worker.id.generation,
        "uptime_s": round(now - worker.asked, 1),
        "replacement": worker.replacement.value,
    }


def fault_map(fault: Fault | None) -> Map | None:
    """The error map of the wire."""
    if fault is None:
        return None
    detail = {"step": fault.step, "pool": fault.pool, "traceback": fault.traceback}
    return {
        "code": fault.code.value,
        "message": fault.message,
        "hint": fault.hint,
        "retryable": fault.code is ErrorCode.BUSY,
        "detail": {name: value for name, value in detail.items() if value},
    }


def operation_map(op: Operation) -> Map:
    order = op.order
    args = {name: value for name, value in order._asdict().items()
            if name not in ("kind", "pool", "busy") and value != order._field_defaults.get(name)}  # fmt: skip
    return {
        "id": int(op.id),
        "kind": order.kind.value,
        "pool": order.pool,
        "summary": queue.describe(order),
        "actor": {"uid": op.actor.uid, "pid": op.actor.pid, "name": op.actor.name},
        "args": args,
        "state": op.state.value,
        "phase": op.progress[0],
        "created_at": op.created,
        "ended_at": op.ended,
        "timeline": [{"at": step.at, "phase": step.phase, "message": step.message} for step in op.timeline],
        "result": dict(op.result) if op.state.value == "done" else None,
        "error": fault_map(op.fault),
        "warnings": list(op.warnings),
    }


def log_problem(pool: Pool) -> str:
    """Why lines of its access log are lost, and by how many workers; "" if none are."""
    lost = [worker for worker in pool.workers() if worker.log_problem]
    return f"{lost[0].log_problem} ({len(lost)} of its workers)" if lost else ""


def notices(state: SupervisorState) -> list[str]:
    """What is worth a look although the pools serve: sentences for a person."""
    found = []
    for pool in state.pools.values():
        if pool.removed:
            continue
        if problem := log_problem(pool):
            found.append(f"{pool.name}: {problem}")
        found += mixed(pool)
        if pool.desired == 0 and not pool.paused:
            found.append(f"{pool.name} has no workers: its clients wait until `srvctl scale`")
        if pool.override is not None and pool.override != pool.spec.workers:
            found.append(
                f"{pool.name} keeps the {pool.override} workers of `srvctl scale`; the file says {pool.spec.workers} "
                f"(`srvctl scale --reset {pool.name}`)"
            )
    reloads = [op for op in state.operations.values() if op.order.kind is Kind.RELOAD and op.state is OpState.DONE]
    return found + [warning for warning in (reloads[-1].warnings if reloads else ()) if "cannot change" in warning]


def mixed(pool: Pool) -> list[str]:
    """That it has code of two releases, if it has."""
    text = warming.sentence(pool.source) if pool.source is not None else ""
    return [f"{text} (`srvctl reload` loads all of one)"] if text else []


def last_failed(state: SupervisorState) -> Operation | None:
    """The last operation of all that ended, if it failed."""
    ended = [op for op in state.operations.values() if op.ended is not None]
    last = max(ended, key=lambda op: (op.ended, op.id), default=None)
    return last if last is not None and last.state in (OpState.FAILED, OpState.ROLLED_BACK) else None


def death_map(death: DeathRecord) -> Map:
    """One death record."""
    return {
        "worker": str(death.worker) if death.worker.serial else str(GenerationId(*death.worker[:2])),
        "pid": death.pid,
        "cause": death.cause.value,
        "summary": death.summary,
        "exit_code": death.death.exit_code,
        "signal": death.death.signal,
        "out_of_memory": death.death.out_of_memory,
        "at": death.at,
        "lived_s": round(death.lived, 3) if death.lived >= 0 else None,
        "ready": death.ready,
        "request": death.death.request_line,
        "request_age_s": round(death.death.request_age, 3),
        "requests": death.death.requests,
        "traceback": death.traceback,
        "stderr": death.death.stderr,
        "stacks": death.death.stacks,
        "left_behind": list(death.death.behind),
    }
