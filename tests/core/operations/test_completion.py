"""What the answer to a reload says of former workers that do not stop accepting."""

from __future__ import annotations

import pytest

from srvd.core.actions import Action
from srvd.core.events import Event, WorkerGone, WorkerReport, WorkerSaid
from srvd.core.model import Kind, OpState, Order, PoolSpec
from srvd.core.operations.completion import NAMED
from srvd.core.supervisor import Supervisor
from tests.support.simulation.world import World


class Deaf(Supervisor):
    """Never hears that a worker of the first generation has closed, or is gone."""

    def handle(self, event: Event, now: float) -> list[Action]:
        match event:
            case WorkerGone(worker) | WorkerSaid(worker, WorkerReport.CLOSED) if worker.generation == 1:
                return []
        return super().handle(event, now)


@pytest.mark.parametrize("workers", [NAMED, NAMED + 1, 200])
def test_an_answer_names_a_few_of_many_former_workers_that_may_still_accept(workers: int) -> None:
    world = World(1, core=Deaf(limit=4 * workers), config=(PoolSpec("web", workers=workers, bake=0),))
    world.start()
    world.run(60)
    world.order(Order(Kind.RELOAD))
    for _ in range(30):
        world.run(1)
    reload = list(world.core.state.operations.values())[-1]
    assert reload.state is OpState.DONE
    assert reload.warnings[:NAMED] == tuple(
        f"web/1#{serial} of the former generation is busy, and may still accept a client"
        for serial in range(1, NAMED + 1)
    )
    assert reload.warnings[NAMED:] == ((f"and so may {workers - NAMED} more",) if workers > NAMED else ())
