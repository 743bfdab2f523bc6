"""What the core does for one event does not grow with the number of workers, nor with that of pools.

The work is counted in lines that run in the core, so loops count; no clock is looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import srvd.core
from srvd.core.actions import Action
from srvd.core.events import Event
from srvd.core.model import Death, Kind, OpState, Order, PoolSpec
from srvd.core.supervisor import Supervisor
from tests.support.simulation.world import World

CORE = str(Path(srvd.core.__file__).parent)


class Counted(Supervisor):
    """Counts its events, and the lines that run for them and for the next deadline."""

    events = 0
    lines = 0

    def handle(self, event: Event, now: float) -> list[Action]:
        self.events += 1
        with self._counting():
            return super().handle(event, now)

    def next_deadline(self) -> float | None:
        with self._counting():
            return super().next_deadline()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        former = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(former)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(CORE) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        self.lines += 1
        return self._line


def work(pools: int, workers: int, act: Callable[[World], None]) -> float:
    """Lines for each event, on average, while so many pools of so many workers do this."""
    config = tuple(PoolSpec(f"p{number}", workers=workers, bake=0, rollback_window=0) for number in range(pools))
    core = Counted(limit=4 * pools * workers)
    world = World(1, core=core, config=config)
    if act is not start:
        world.start()
        world.run(60)
        core.events = core.lines = 0
    act(world)
    assert core.events >= 4
    return core.lines / core.events


def ordered(world: World, order: Order) -> None:
    world.order(order)
    for _ in range(30):
        world.run(60)
        if not world.core.state.open_operations:
            break
    assert {op.state for op in world.core.state.operations.values()} == {OpState.DONE}


def start(world: World) -> None:
    world.start()
    world.run(60)
    assert world.core.state.started


def reload(world: World) -> None:
    ordered(world, Order(Kind.RELOAD))


def recycle(world: World) -> None:
    ordered(world, Order(Kind.RECYCLE, "p0"))


def scale(world: World) -> None:
    size = world.core.state.pools["p0"].desired
    ordered(world, Order(Kind.SCALE, "p0", size * 2))
    ordered(world, Order(Kind.SCALE, "p0", size))


def pause(world: World) -> None:
    ordered(world, Order(Kind.PAUSE, "p0"))
    ordered(world, Order(Kind.RESUME, "p0"))


def reopen(world: World) -> None:
    ordered(world, Order(Kind.REOPEN))


def deaths(world: World) -> None:
    for child in world.living():
        world.die(child, Death(signal=9))
        world.run(0.1)
    world.run(60)


def stop(world: World) -> None:
    world.order(Order(Kind.STOP))
    world.run(60)
    assert world.exited == 0


ACTS = (start, reload, recycle, scale, pause, reopen, deaths, stop)


@pytest.mark.parametrize("workers", [100, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("act", ACTS)
def test_the_work_for_an_event_grows_like_the_logarithm_of_the_workers_at_most(
    act: Callable[[World], None], workers: int
) -> None:
    assert work(1, workers, act) <= work(1, 10, act) * log(workers) / log(10)


@pytest.mark.parametrize("act", ACTS)
def test_the_work_for_an_event_grows_like_the_logarithm_of_the_pools_at_most(act: Callable[[World], None]) -> None:
    few = work(5, 4, act)
    assert work(50, 4, act) <= few * log(200) / log(20)
