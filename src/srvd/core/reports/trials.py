"""Which reload or rollback a generation on trial belongs to, and what its failure means for it.

Hears no event itself: the reports of workers and zygotes lead here. Pure.
"""

from __future__ import annotations

from srvd.core import backoff
from srvd.core.model import ErrorCode, Fault, Stage
from srvd.core.operations import execute, rollout
from srvd.core.state.model import (
    DeathRecord,
    Generation,
    Operation,
    Pool,
    Rollout,
    SupervisorState,
)
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

__all__ = ["find", "rollout_of", "trial_failed", "trial_lost"]


def find(state: SupervisorState, pool: str, number: int) -> tuple[Pool, Generation] | None:
    home = state.pools.get(pool)
    generation = home.generations.get(number) if home else None
    return (home, generation) if home and generation else None


def rollout_of(state: SupervisorState, generation: Generation) -> tuple[Operation, Rollout] | None:
    for op in state.open_operations:
        part = op.rollouts.get(generation.id.pool)
        if part is not None and part.generation == generation.id.number:
            return op, part
    return None


def trial_lost(state: SupervisorState, generation: Generation, worker: Worker, record: DeathRecord, turn: Turn) -> None:
    found = rollout_of(state, generation)
    if found is None:
        return
    found[1].losses += 1
    proof = worker.failure or record.death.stacks or record.death.stderr
    if generation.unwell and record.death.stacks:  # why it answered badly, beside where it waits now
        proof = "\n".join(filter(None, (record.death.stacks, record.death.stderr)))
    is_canary = generation.stage in (Stage.PROBING, Stage.WARMING) and worker.id.serial == generation.canary
    if worker.ready_at is None or is_canary or generation.fault is not None:
        fault = generation.fault or Fault(
            ErrorCode.BOOT_FAILED, f"worker {worker.id} {record.summary}{backoff.last_line(proof)}"
        )
        trial_failed(state, generation, fault._replace(traceback=proof), turn)
    elif found[1].losses >= rollout.LOSSES:
        message = f"{found[1].losses} workers of {generation.id} died in standby; the last {record.summary}"
        trial_failed(state, generation, Fault(ErrorCode.BOOT_FAILED, message, traceback=proof), turn)


def trial_failed(state: SupervisorState, generation: Generation, fault: Fault, turn: Turn) -> None:
    found = rollout_of(state, generation)
    if found is None or not generation.is_trial:
        return
    steps = {Stage.LOADING: "load", Stage.BOOTING: "canary", Stage.PROBING: "probe", Stage.WARMING: "warm"}
    step = fault.step or steps.get(generation.stage, "stage")
    execute.fail(state, found[0], fault._replace(step=step, pool=generation.id.pool), turn)
