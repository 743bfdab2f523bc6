"""Claims about the state between events: each field is as `core/state/model.py` says, in whatever the world does."""

from __future__ import annotations

import random
from typing import Any

import pytest

from srvd.core.events import Event, WorkerContinued
from srvd.core.model import ExitReason, OpState, Phase, Replacement, Stage, Strategy
from srvd.core.state import snapshot
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, Operation, Pool, SupervisorState, Zygote
from srvd.core.state.workers import Worker, Workers
from srvd.core.supervisor import Supervisor
from srvd.ids import WorkerId
from tests.support.shares import shares
from tests.support.simulation.claims_of_time import split
from tests.support.simulation.processes import Claims
from tests.support.simulation.walk import one_walk
from tests.support.simulation.world import World


class Invariants(Claims):
    """Looks at the whole state after each event."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.looks = 0

    def after(self, event: Event, out: list[Any]) -> None:
        self.looks += 1
        check(self.world.core.state)


class Counted(Claims):
    """What is kept with each change is what a look at all workers finds, and no pool that was left out had to do
    anything."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.chance = random.Random(world.seed)

    def after(self, event: Event, out: list[Any]) -> None:
        state = self.world.core.state
        _recount(state)
        if self.chance.random() < 0.2 and self.world.exited is None:
            again = Supervisor(state=snapshot.load(snapshot.dump(state)))
            _recount(again.state)
            assert again.next_deadline() == self.world.core.next_deadline()
            nothing = WorkerContinued(WorkerId("nobody", 1, 1))  # but all pools are looked at
            assert again.handle(nothing, self.world.now) == []


def _recount(state: SupervisorState) -> None:
    assert list(state.operations.open.values()) == [op for op in state.operations.values() if op.ended is None]
    alive = {worker.id for pool in state.pools.values() for worker in pool.workers() if worker.is_capacity}
    for op in state.open_operations:
        assert op.left == op.targets & alive
    for pool in state.pools.values():
        fresh, old = split(pool)
        assert (pool.fresh, pool.old) == (len(fresh), len(old))
        for generation in pool.generations.values():
            _recount_workers(generation.workers)


def _recount_workers(workers: Workers) -> None:
    every = list(workers.values())
    assert [worker.id.serial for worker in every] == sorted(workers)
    for phase in Phase:
        for why in Replacement:
            those = [worker for worker in every if worker.phase is phase and worker.replacement is why]
            assert workers.count((phase,), (why,)) == len(those)
            assert workers.latest((phase,), 2, (why,)) == those[-2:][::-1]
        assert workers.oldest((phase,), 2) == [worker for worker in every if worker.phase is phase][:2]
    assert workers.not_closed == sum(worker.phase is Phase.DRAINING and not worker.closed for worker in every)
    deadlines = [min(worker.deadline, worker.wake_at) for worker in every]
    assert workers.deadline == min(deadlines, default=NEVER)
    middle = sorted(deadlines)[len(deadlines) // 2] if deadlines else 0.0
    if middle < NEVER:
        assert workers.due(middle) == [worker for worker in every if min(worker.deadline, worker.wake_at) <= middle]


def check(state: SupervisorState) -> None:
    known = {revision for pool in state.pools.values() for revision in _revisions(pool)} | set(state.adopted)
    assert known <= state.revisions
    assert list(state.adopted) == sorted(state.adopted)
    for name, pool in state.pools.items():
        assert pool.name == name
        _pool(pool)
    for op in state.operations.values():
        assert 1 <= op.id <= state.count
        _operation(state, op)


def _revisions(pool: Pool) -> set[Any]:
    return {generation.revision for generation in pool.generations.values()}


def _pool(pool: Pool) -> None:
    assert pool.active is None or pool.active in pool.generations
    assert pool.parked is None or (pool.parked in pool.generations and pool.parked != pool.active)
    assert sum(generation.is_trial for generation in pool.generations.values()) <= 1
    assert pool.bake is None or pool.parked == pool.bake.former
    for number, generation in pool.generations.items():
        assert generation.id == (pool.name, number)
        assert number <= pool.numbers
        assert (generation.stage is Stage.ACTIVE) == (pool.active == number)
        _generation(generation)
        for serial, worker in generation.workers.items():
            assert worker.id == (pool.name, number, serial)
            assert serial <= pool.serials
            _worker(worker)


def _generation(generation: Generation) -> None:
    assert generation.fault is None or generation.is_trial or generation.stage is Stage.FAILED
    assert generation.ask_at == NEVER or generation.stage in (Stage.PROBING, Stage.FAILED)
    assert not generation.loaded or generation.zygote is not Zygote.LOADING
    assert generation.stage is not Stage.LOADING or generation.canary == 0
    assert not generation.memory_policy.strikes or generation.memory_policy.since
    assert bool(generation.memory_policy.reason) == bool(generation.memory_policy.strikes)


def _worker(worker: Worker) -> None:
    assert worker.phase is not Phase.GONE
    assert (worker.pid is None) == (worker.phase in (Phase.ASKED, Phase.CANCELLED))
    if worker.phase in (Phase.STANDBY, Phase.SERVING):
        assert worker.deadline == NEVER
        assert worker.ready_at is not None
    if worker.phase in (Phase.DRAINING, Phase.CANCELLED):
        assert worker.exit_reason is not ExitReason.NONE
    assert worker.expired or worker.replacement is not Replacement.EXPIRED


def _operation(state: SupervisorState, op: Operation) -> None:
    assert op.state.ended == (op.ended is not None)
    assert op.fault is None or op.state.ended
    if op.state is OpState.DONE:
        assert op.fault is None
    elif op.state.ended:
        assert op.fault is not None
        assert op.timeline[-1].phase == op.state.value
    assert op.timeline[0].phase == "queued"
    assert [step.at for step in op.timeline] == sorted(step.at for step in op.timeline)
    for name, part in op.rollouts.items():
        assert part.pool == name
        assert part.strategy is not Strategy.AUTO
        assert part.committed or not part.finished
    assert len({part.committed for part in op.rollouts.values()}) <= 1


def _steps(seed: int) -> int:
    return 120 if seed else 40  # the first walk is part of every run, and short


@pytest.mark.parametrize("seed", shares(8, slow=1))
def test_each_field_is_as_its_declaration_says(seed: int) -> None:
    one_walk(seed, steps=_steps(seed), more=(Invariants,))


@pytest.mark.parametrize("seed", shares(8, slow=1))
def test_what_is_counted_is_what_there_is(seed: int) -> None:
    one_walk(seed, steps=_steps(seed), more=(Counted,))
