"""Claims about a core that goes on with the facts of a daemon that died."""

from __future__ import annotations

import random

import pytest

from srvd.core.actions import Action
from srvd.core.events import Event, Resumed
from tests.support.shares import shares
from tests.support.simulation.daemon_death import daemon_dies
from tests.support.simulation.processes import Claims
from tests.support.simulation.walk import one_walk
from tests.support.simulation.world import World

SEEDS = range(1000, 1040)


class Mortal(Claims):
    """Now and then the daemon dies, whatever is under way."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.chance = random.Random(world.seed)
        self.deaths = 0
        self.dying = False

    def after(self, event: Event, out: list[Action]) -> None:
        if self.dying or self.world.well or isinstance(event, Resumed) or self.chance.random() > 0.02:
            return
        self.deaths += 1
        self.dying = True
        world = self.world

        def die() -> None:
            if not world.well:
                daemon_dies(world)
            self.dying = False

        world._at(world.now, die)


@pytest.mark.parametrize("share", shares(20, slow=1))
def test_a_walk_ends_well_though_its_daemon_dies_again_and_again(share: int) -> None:
    for seed in SEEDS[share::20]:
        one_walk(seed, more=(Mortal,))
