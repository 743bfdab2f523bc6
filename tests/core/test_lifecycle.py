"""The two lives as tables: every cell is there, says who is to blame, and every phase and stage can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import product
from typing import TypeVar

import pytest

from srvd.core.lifecycle import (
    CAPACITY,
    GENERATION,
    STAGED,
    TRIAL,
    WORKER,
    GenerationTrigger,
    ImpossibleStep,
    NoTransition,
    WorkerTrigger,
    next_phase,
    next_stage,
)
from srvd.core.model import Phase, Stage

SAID = {
    WorkerTrigger.READY,
    WorkerTrigger.CONFIRMED,
    WorkerTrigger.CLOSED,
    WorkerTrigger.FAILED,
    WorkerTrigger.EXPIRED,
}
"""What a worker says of itself; everything else is seen or decided by the daemon."""

State = TypeVar("State", bound=Enum)
Cause = TypeVar("Cause", bound=Enum)


def reachable(table: Mapping[tuple[State, Cause], State | NoTransition], start: State) -> set[State]:
    found, new = {start}, {start}
    while new:
        new = {
            cell for (state, _), cell in table.items() if state in new and not isinstance(cell, NoTransition)
        } - found
        found |= new
    return found


def test_the_table_of_workers_is_total() -> None:
    assert set(WORKER) == set(product(Phase, WorkerTrigger))
    assert all(isinstance(cell, (Phase, NoTransition)) for cell in WORKER.values())


def test_the_table_of_generations_is_total() -> None:
    assert set(GENERATION) == set(product(Stage, GenerationTrigger))
    assert all(isinstance(cell, (Stage, NoTransition)) for cell in GENERATION.values())


def test_every_phase_is_reached_from_asked() -> None:
    assert reachable(WORKER, Phase.ASKED) == set(Phase)


def test_every_stage_is_reached_from_loading() -> None:
    assert reachable(GENERATION, Stage.LOADING) == set(Stage)


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.GONE])
def test_every_worker_can_come_to_its_end(phase: Phase) -> None:
    assert Phase.GONE in reachable(WORKER, phase)


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.GONE])
def test_every_generation_can_come_to_its_end(stage: Stage) -> None:
    assert Stage.GONE in reachable(GENERATION, stage)


def test_nothing_follows_an_end() -> None:
    assert all(isinstance(WORKER[Phase.GONE, stimulus], NoTransition) for stimulus in WorkerTrigger)
    assert all(isinstance(GENERATION[Stage.GONE, impulse], NoTransition) for impulse in GenerationTrigger)


@pytest.mark.parametrize("cell", [key for key, cell in WORKER.items() if cell is NoTransition.IMPOSSIBLE])
def test_an_impossible_step_of_a_worker_stops_with_both_names(cell: tuple[Phase, WorkerTrigger]) -> None:
    with pytest.raises(ImpossibleStep, match=rf"\b{cell[0].name}\b.*\b{cell[1].name}\b"):
        next_phase(*cell)


@pytest.mark.parametrize("cell", [key for key, cell in GENERATION.items() if not isinstance(cell, Stage)])
def test_an_impossible_step_of_a_generation_stops_with_both_names(cell: tuple[Stage, GenerationTrigger]) -> None:
    with pytest.raises(ImpossibleStep, match=rf"\b{cell[0].name}\b.*\b{cell[1].name}\b"):
        next_stage(*cell)


def test_a_worker_that_speaks_out_of_turn_is_a_misfit_and_never_a_bug_of_ours() -> None:
    for (phase, stimulus), cell in WORKER.items():
        assert (cell is NoTransition.MISFIT) <= (stimulus in SAID), f"{phase.name} {stimulus.name}"
        assert (stimulus in SAID) <= (cell is not NoTransition.IMPOSSIBLE), f"{phase.name} {stimulus.name}"
    assert all(next_phase(*key) is None for key, cell in WORKER.items() if cell is NoTransition.MISFIT)


def test_no_generation_is_a_misfit() -> None:
    assert NoTransition.MISFIT not in GENERATION.values()


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase not in (Phase.ASKED, Phase.CANCELLED, Phase.GONE)])
def test_whoever_has_a_process_can_be_killed_and_can_die(phase: Phase) -> None:
    assert next_phase(phase, WorkerTrigger.KILL) is Phase.KILLED
    assert next_phase(phase, WorkerTrigger.EXITED) is Phase.GONE


@pytest.mark.parametrize("phase", [Phase.ASKED, Phase.CANCELLED])
def test_who_is_retired_before_its_pid_is_known_is_cancelled_and_killed_as_soon_as_it_is(phase: Phase) -> None:
    for stimulus in (WorkerTrigger.RETIRE, WorkerTrigger.KILL, WorkerTrigger.OVERDUE):
        assert next_phase(phase, stimulus) is Phase.CANCELLED
    assert next_phase(Phase.CANCELLED, WorkerTrigger.FORKED) is Phase.KILLED


def test_only_workers_that_may_hold_requests_are_drained() -> None:
    drained = {phase for phase in Phase if WORKER[phase, WorkerTrigger.RETIRE] is Phase.DRAINING}
    assert drained == {Phase.STANDBY, Phase.OPENING, Phase.SERVING, Phase.DRAINING}


def test_whoever_waits_for_somebody_can_be_overdue() -> None:
    waits = {phase for phase in Phase if isinstance(WORKER[phase, WorkerTrigger.OVERDUE], Phase)}
    # In standby and when serving a worker waits for nobody.
    assert waits == set(Phase) - {Phase.STANDBY, Phase.SERVING, Phase.GONE}


def test_a_draining_worker_is_never_capacity() -> None:
    assert CAPACITY.isdisjoint({Phase.DRAINING, Phase.KILLED, Phase.CANCELLED, Phase.GONE})
    assert STAGED < CAPACITY
    assert {Phase.OPENING, Phase.SERVING} == CAPACITY - STAGED


def test_a_trial_ends_by_its_commit_or_is_abandoned() -> None:
    for stage in TRIAL:
        assert next_stage(stage, GenerationTrigger.ABANDON) is Stage.FAILED
    leaves = {stage for stage in TRIAL if GENERATION[stage, GenerationTrigger.COMMIT] is Stage.ACTIVE}
    assert leaves == {Stage.STAGING}


def test_a_generation_serves_only_after_its_canary_was_healthy() -> None:
    into = {key for key, cell in GENERATION.items() if cell is Stage.ACTIVE}
    assert into == {(Stage.STAGING, GenerationTrigger.COMMIT), (Stage.PARKED, GenerationTrigger.RESTORE)}
    assert {key for key, cell in GENERATION.items() if cell is Stage.STAGING} == {
        (Stage.WARMING, GenerationTrigger.WARMED)
    }
    assert {key for key, cell in GENERATION.items() if cell is Stage.PROBING} == {
        (Stage.BOOTING, GenerationTrigger.CANARY)
    }
