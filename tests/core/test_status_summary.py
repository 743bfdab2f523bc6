"""Claims about the state and the sentence that a service manager is told."""

from __future__ import annotations

import pytest

from srvd.core.model import Actor, ErrorCode, Fault, Kind, OpId, OpState, Order, Phase, PoolSpec, Revision
from srvd.core.state.model import Generation, Operation, Pool, SupervisorState, Zygote
from srvd.core.state.workers import Worker
from srvd.core.status.summary import Bulletin, Condition, bulletin
from srvd.ids import GenerationId, WorkerId


def state_with(serving: int = 2, workers: int = 2, *, started: bool = True) -> SupervisorState:
    """One pool of two workers, so many of which serve."""
    found = SupervisorState()
    found.started = started
    pool = found.pools["web"] = Pool(PoolSpec("web", workers=workers))
    generation = pool.generations[1] = Generation(GenerationId("web", 1), pool.spec, Revision(1))
    generation.zygote = Zygote.UP
    pool.active = 1
    for serial in range(1, serving + 1):
        generation.workers[serial] = Worker(WorkerId("web", 1, serial), 0.0, 0.0, Phase.SERVING)
    return found


def operation(found: SupervisorState, kind: Kind, state: OpState, message: str = "") -> Operation:
    found.count += 1
    op = Operation(OpId(found.count), Order(kind), Actor(0, 1, "root"), 0.0)
    op.state = state
    op.fault = Fault(ErrorCode.LOAD_FAILED, message) if message else None
    op.ended = 1.0 if state.ended else None
    found.operations[op.id] = op
    return op


def test_a_pool_says_how_many_serve_and_how_many_should() -> None:
    assert bulletin(state_with()) == Bulletin(Condition.READY, "web: 2 workers serve")
    assert bulletin(state_with(1, 1)).sentence == "web: 1 worker serves"
    assert bulletin(state_with(1, 3)).sentence == "web: 1 of 3 workers serve"
    assert bulletin(state_with(3, 2)).sentence == "web: 3 workers serve"
    assert bulletin(state_with(0, started=False)) == Bulletin(Condition.STARTING, "starting: web: 0 of 2 workers serve")


def test_a_pool_that_is_not_well_says_so() -> None:
    crashing = state_with(0)
    backoff = crashing.pools["web"].backoff
    backoff.strikes, backoff.reason = 5, "exited with code 9\nand more"
    assert bulletin(crashing).sentence == "web: 0 of 2 workers serve, it is crashing: exited with code 9"
    lost = state_with()
    lost.pools["web"].generations[1].zygote = Zygote.GONE
    assert bulletin(lost).sentence == "web: 2 workers serve, its zygote is being replaced"
    paused = state_with(0)
    paused.pools["web"].paused = True
    assert bulletin(paused).sentence == "web is paused"


@pytest.mark.parametrize("kind", [Kind.RELOAD, Kind.ROLLBACK, Kind.UPGRADE])
def test_an_operation_that_changes_the_code_is_a_reload_as_soon_as_it_runs(kind: Kind) -> None:
    found = state_with()
    op = operation(found, kind, OpState.QUEUED)
    assert bulletin(found).condition is Condition.READY
    op.state = OpState.RUNNING
    assert bulletin(found) == Bulletin(Condition.RELOADING, f"{kind.value} 1: begun; web: 2 workers serve")
    op.progress = ("stage", 1, 2)
    assert bulletin(found).sentence == f"{kind.value} 1: stage (1 of 2); web: 2 workers serve"


def test_a_failed_reload_is_told_until_another_one_succeeds() -> None:
    found = state_with()
    operation(found, Kind.RELOAD, OpState.FAILED, "no module\nnamed shop")
    operation(found, Kind.SCALE, OpState.DONE)
    assert bulletin(found).sentence == "web: 2 workers serve; reload 1 failed: no module"
    operation(found, Kind.RELOAD, OpState.DONE)
    assert bulletin(found).sentence == "web: 2 workers serve"


def test_a_sentence_has_an_end() -> None:
    found = state_with()
    operation(found, Kind.RELOAD, OpState.FAILED, "x" * 100_000)
    assert len(bulletin(found).sentence) < 1000


def test_a_stop_counts_who_is_left() -> None:
    found = state_with()
    found.stop = operation(found, Kind.STOP, OpState.RUNNING).id
    assert bulletin(found) == Bulletin(Condition.STOPPING, "stopping: 2 workers to finish")
    found.pools.clear()
    assert bulletin(found).sentence == "stopping"
    found.doomed = Fault(ErrorCode.LOAD_FAILED, "importing app raised")
    assert bulletin(found) == Bulletin(Condition.STOPPING, "could not start: importing app raised")


def test_a_pool_says_what_was_taken_back_and_that_it_serves_nobody() -> None:
    back = state_with()
    back.pools["web"].taken_back = "web@2 was taken back: 70 of its 71 answers were 5xx while it baked"
    assert bulletin(back).sentence == (
        "web: 2 workers serve; web@2 was taken back: 70 of its 71 answers were 5xx while it baked"
    )
    assert bulletin(state_with(0, 0)).sentence == "web serves nobody now, clients wait"
