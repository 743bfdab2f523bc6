"""Claims about the state that a daemon hands over: a core made of it does what the former one would have done.

`python -m tests.core.test_snapshot` writes the recorded state anew, which is right only for a new version of it; the
record of the former version stays beside it, and must be read as well.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgpack
import pytest

from srvd.core.actions import Ended
from srvd.core.events import Event
from srvd.core.model import Death, Kind, OpId, Order, Phase
from srvd.core.state import snapshot
from srvd.core.state.codec import Misfit, codec
from srvd.core.state.model import DEATHS, Generation, Operation, Pool, SupervisorState
from srvd.core.state.workers import Worker
from srvd.core.supervisor import Supervisor
from srvd.errors import Unsupported
from tests.support.shares import shares
from tests.support.simulation.processes import Claims
from tests.support.simulation.walk import one_walk
from tests.support.simulation.world import World

STATES = Path(__file__).parent.parent / "states"
SEEDS = range(24)


def carried(state: SupervisorState, ended: dict[OpId, Any] | None = None) -> SupervisorState:
    """The same state, after it was bytes."""
    return snapshot.load(msgpack.unpackb(msgpack.packb(snapshot.dump(state, ended)), strict_map_key=False))


class Transplanted(Claims):
    """Now and then, in the middle of whatever is under way, another core goes on with the state of the former."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.chance = random.Random(world.seed + 1)
        self.count = 0
        self.ended: dict[OpId, Any] = {}

    def before(self, event: Event) -> None:
        if self.chance.random() < 0.05:
            former = self.world.core
            assert snapshot.dump(former.state, dict(self.ended)) == snapshot.dump(former.state), "it changed when ended"
            self.world.core = Supervisor(state=carried(former.state, self.ended))
            _spoil(former.state)
            self.count += 1

    def after(self, event: Event, out: list[Any]) -> None:
        if any(isinstance(action, Ended) for action in out):
            snapshot.dump(self.world.core.state, self.ended)
        if self.world.exited is not None:
            assert self.count or self.world.events < 200, "nobody was transplanted"


def _spoil(state: SupervisorState) -> None:
    """What is still looked up in the former state is found out."""
    for pool in state.pools.values():
        for worker in pool.workers():
            worker.phase = Phase.GONE
        pool.generations.clear()
    state.pools.clear()
    state.operations.clear()


@pytest.mark.parametrize("share", shares(len(SEEDS), slow=1))
def test_a_walk_goes_on_the_same_with_a_state_that_was_carried(share: int) -> None:
    seed, steps = SEEDS[share], 120 if share else 40  # the first walk is part of every run, and short
    assert one_walk(seed, steps, (Transplanted,)).transcript() == one_walk(seed, steps).transcript()


def busy_state() -> SupervisorState:
    """A state with a bit of everything in it: a reload under way, deaths, history, a size that was ordered."""
    world = World(7)
    world.start()
    world.run(5)
    world.order(Order(Kind.SCALE, "web", 6))
    world.run(5)
    world.die(world.living()[0], Death(signal=11, request_line="GET /é", requests=3, stderr="Segmentation fault\n"))
    world.run(1)
    world.order(Order(Kind.RELOAD))
    world.run(40)
    world.order(Order(Kind.RELOAD, "web"))
    state = world.core.state
    for _ in range(100):
        if any(pool.trial for pool in state.pools.values()):
            break
        world.run(0.01)
    assert state.open_operations
    assert any(pool.deaths for pool in state.pools.values())
    return state


def test_a_state_survives_bytes() -> None:
    state = busy_state()
    again = carried(state)
    assert snapshot.dump(again) == snapshot.dump(state)
    assert type(again.pools["web"].deaths).__name__ == "deque"
    assert again.pools["web"].deaths.maxlen == DEATHS


@pytest.mark.parametrize("path", sorted(STATES.glob("core-*.json")), ids=lambda path: path.stem)
def test_a_recorded_state_is_read(path: Path) -> None:
    recorded = json.loads(path.read_text())
    core = Supervisor(state=snapshot.load(recorded))
    assert [op.order.kind for op in core.state.open_operations] == [Kind.RELOAD]
    assert core.state.pools["web"].override == 6
    assert core.next_deadline() is not None
    assert f"core-{recorded['version']}" == path.stem


def test_the_version_in_use_is_recorded() -> None:
    assert (STATES / f"core-{snapshot.VERSION}.json").exists()


def test_a_state_has_all_that_is_recorded_and_nothing_else() -> None:
    """A new field has a default, so that the recorded state is still read; a field that is renamed has its former name
    (`Formerly`); one that goes or changes its type needs a new version."""
    recorded = json.loads((STATES / f"core-{snapshot.VERSION}.json").read_text())
    now = snapshot.dump(snapshot.load(recorded))
    recorded = _renamed(recorded)
    assert _without(now, recorded) == recorded


RENAMED = {
    "breaker": "backoff",
    "condemned": "replacement",
    "leaving": "exit_reason",
    "mender": "repair_backoff",
    "wishes": "desired",
    "worn": "expired",
}


def _renamed(old: Any) -> Any:
    """The recorded state by the names that its fields have now."""
    if isinstance(old, dict):
        return {RENAMED.get(key, key): _renamed(value) for key, value in old.items()}
    return [_renamed(one) for one in old] if isinstance(old, list) else old


def _without(new: Any, old: Any) -> Any:
    """`new` but for the fields that `old` has not."""
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _without(value, old[key]) for key, value in new.items() if key in old}
    if isinstance(new, list) and isinstance(old, list):
        return [_without(one, other) for one, other in zip(new, old, strict=True)]
    return new


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({}, "version None"),
        ({"version": snapshot.VERSION + 1, "house": {}}, f"version {snapshot.VERSION + 1}"),
        ([1], "version None"),
        ({"version": snapshot.VERSION}, "NoneType instead of SupervisorState"),
        ({"version": snapshot.VERSION, "house": {}}, "SupervisorState has no "),
    ],
)
def test_a_state_of_somebody_else_is_refused(state: Any, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        snapshot.load(state)


def spoiled(change: Any) -> Any:
    state = snapshot.dump(busy_state())
    change(state["house"])
    return state


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.update(limit="many"), "SupervisorState.limit: str instead of int"),
        (lambda state: state.update(started=1), "SupervisorState.started: int instead of bool"),
        (lambda state: state.update(colour="red"), "SupervisorState knows no colour"),
        (lambda state: state["pools"]["web"].update(active=99), "pool web has no generation 99"),
        (lambda state: state["pools"]["web"].pop("spec"), "SupervisorState.pools: Pool has no spec"),
        (lambda state: state["operations"][0][1].update(state="odd"), "'odd' is no OpState"),
        (lambda state: state["operations"][0].append(1), "3 items instead of 2"),
        (lambda state: state.update(stop=4711), "operation 4711 is not there"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_with_the_place(change: Any, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        snapshot.load(spoiled(change))


def test_an_attribute_that_is_not_declared_is_not_lost_in_silence() -> None:
    state = busy_state()
    vars(state)["extra"] = 1
    with pytest.raises(TypeError, match="SupervisorState does not declare extra"):
        snapshot.dump(state)


@pytest.mark.parametrize("cls", [SupervisorState, Pool, Generation, Worker, Operation])
def test_every_record_of_the_core_can_be_carried(cls: type) -> None:
    assert codec(cls)


def test_a_new_field_has_its_default_when_an_older_state_is_read() -> None:
    state = snapshot.dump(busy_state())
    for pool in state["house"]["pools"].values():
        del pool["restarts"]
    assert snapshot.load(state).pools["web"].restarts == 0


def test_a_type_that_cannot_be_carried_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="object"):
        codec(object)
    with pytest.raises(Misfit, match="str instead of int or NoneType"):
        codec(int | None).load("x")


if __name__ == "__main__":
    STATES.mkdir(exist_ok=True)
    (STATES / f"core-{snapshot.VERSION}.json").write_text(json.dumps(snapshot.dump(busy_state()), indent=1) + "\n")
