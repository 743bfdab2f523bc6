"""What the core keeps has bounds, and at the bound it does what it says."""

from __future__ import annotations

from srvd.core.actions import Action, Opened, Refused
from srvd.core.events import Ordered
from srvd.core.model import Death, ErrorCode, Kind, OpState, Order
from srvd.core.operations.queue import QUEUE
from srvd.core.reports import death_records
from srvd.core.state.model import DEATHS, HISTORY
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn
from srvd.ids import WorkerId
from tests.support.simulation.processes import ROOT
from tests.support.simulation.world import World


def started() -> World:
    world = World(1)
    world.start()
    world.run(5)
    return world


def ordered(world: World, order: Order) -> list[Action]:
    world.tickets += 1
    out = world.core.handle(Ordered(world.tickets, order, ROOT), world.now)
    for action in out:
        world.perform(action)
    return out


def test_a_full_queue_refuses_the_next_order_as_busy_but_never_a_stop() -> None:
    world = started()
    for number in range(QUEUE):
        assert any(isinstance(a, Opened) for a in ordered(world, Order(Kind.SCALE, "web", 5 + number % 2)))
    refused = [a for a in ordered(world, Order(Kind.SCALE, "web", 7)) if isinstance(a, Refused)]
    assert refused[0].fault.code is ErrorCode.BUSY
    assert any(isinstance(a, Opened) for a in ordered(world, Order(Kind.STOP)))


def test_a_full_queue_is_carried_out_to_its_end() -> None:
    world = started()
    for number in range(QUEUE):
        ordered(world, Order(Kind.SCALE, "web", 5 + number % 2))
    world.run(60)
    operations = list(world.core.state.operations.values())
    assert len(operations) == 1 + QUEUE
    assert {op.state for op in operations} == {OpState.DONE}
    assert world.core.state.pools["web"].desired == 6


def test_a_full_queue_may_begin_and_end_in_one_turn() -> None:
    world = started()
    ordered(world, Order(Kind.SCALE, "web", 5))
    for number in range(QUEUE - 1):  # they wait for the first one, and then each is true as soon as it begins
        ordered(world, Order(Kind.PAUSE if number % 2 else Kind.SCALE, "web", 5 - number % 3))
    world.run(60)
    assert not world.core.state.open_operations


def test_the_history_keeps_the_last_operations() -> None:
    world = started()
    for number in range(HISTORY + 50):
        ordered(world, Order(Kind.SCALE, "web", 4 - number % 2))
        world.run(1)
    state = world.core.state
    assert len(state.operations) == HISTORY
    assert max(state.operations) == state.count == HISTORY + 51


def test_a_pool_keeps_the_last_certificates() -> None:
    world = started()
    for _ in range(DEATHS + 20):
        world.die(world.serving("web")[0], Death(signal=9))
        world.run(2)
    deaths = world.core.state.pools["web"].deaths
    assert len(deaths) == DEATHS
    assert deaths[-1].worker.serial > deaths[0].worker.serial > 20


def test_no_number_of_ordered_departures_displaces_a_death() -> None:
    world = started()
    world.die(world.serving("web")[0], Death(signal=11))
    for _ in range(DEATHS):
        ordered(world, Order(Kind.RECYCLE, "web"))
        world.run(5)
    pool = world.core.state.pools["web"]
    assert [certificate.death.signal for certificate in pool.deaths] == [11]
    assert len(pool.departures) == DEATHS


def test_what_workers_say_that_they_have_answered_never_outgrows_a_message() -> None:
    pool = started().core.state.pools["web"]
    for serial in range(1, 5):
        pool.answered = death_records.MOST - 1
        worker = Worker(WorkerId("web", 1, serial), 0.0, 0.0)
        death_records.record_death(pool, worker, Death(requests=2**53 - 1), Turn(1.0))
        assert pool.answered == death_records.MOST
