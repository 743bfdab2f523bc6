"""A random walk of the core through the simulated world: fate and people do what they like, then things get well
again, and in the end everybody must be where the wish says, every operation ended, and a stop leave nothing.
"""

from __future__ import annotations

from srvd.core.lifecycle import CAPACITY
from srvd.core.model import Death, Kind, OpId, Order
from tests.world import Weather, World

APPS = ("good", "good", "good", "good", "raises", "exits", "hangs", "boot_crash", "boot_raise", "boot_hang", "sick",
        "sick_hang", "crashes")  # fmt: skip


def one_walk(seed: int, steps: int = 120) -> World:
    """Raises `AssertionError` with the seed and the last lines of the transcript when an invariant breaks."""
    world = World(seed)
    try:
        world.start()
        world.run(30)
        for _ in range(steps):
            _something_happens(world)
            if world.exited is not None:
                return world
            world.run(world.random.choice([0.0, 0.001, 0.01, 0.1, 0.5, 3.0, 12.0]))
        _gets_well(world)
        _stops(world)
    except AssertionError as exc:
        tail = "\n".join(world.log[-60:])
        msg = f"seed {seed} after {world.events} events: {exc}\n{tail}"
        raise AssertionError(msg) from exc
    return world


def _something_happens(world: World) -> None:
    choose = world.random
    pool = choose.choice(["web", "api"])
    somewhere = choose.choice(["", "web", "api"])
    children = [c for c in world.alive() if not c.killed]
    told = [c for c in children if c.told]
    match choose.randrange(17):
        case 0 | 1:
            world.order(Order(Kind.SCALE, pool, choose.randint(0, 7)))
        case 2:
            for _ in range(choose.randint(1, 6)):
                world.order(Order(Kind.SCALE, pool, choose.choice([1, 1, -1, 2]), relative=True))
        case 3:
            world.order(Order(Kind.SCALE, pool, reset=True, timeout=choose.choice([0.0, 0.05, 2.0])))
        case 4 | 5 | 6:
            world.order(
                Order(Kind.RELOAD, somewhere, wait_bake=choose.random() < 0.2, timeout=choose.choice([0.0, 0.0, 1.0]))
            )
        case 7:
            world.order(Order(Kind.ROLLBACK, somewhere))
        case 8:
            worker = str(choose.choice(told).id) if told and choose.random() < 0.5 else ""
            world.order(Order(Kind.RECYCLE, pool, worker=worker))
        case 9:
            world.order(Order(choose.choice([Kind.PAUSE, Kind.RESUME, Kind.RESUME]), somewhere))
        case 10 | 11 if told:
            death = choose.choice(
                [Death(signal=9), Death(exit_code=3), Death(signal=11), Death(signal=9, out_of_memory=True)]
            )
            world.crash(choose.choice(told).id, death)
        case 12:
            up = [m for m in world.mothers.values() if m.state == "up"]
            if up:
                mother = choose.choice(up)
                if choose.random() < 0.3:
                    mother.deaf = True
                else:
                    world.lose_zygote(mother.id)
        case 13 | 14:
            world.weather = Weather(choose.choice(APPS), choose.choice([0, 0, 0.3, 1.0]), choose.choice([0, 0, 0.2]))
        case 15 if told:
            worker_id = choose.choice(told).id
            if world.children[worker_id].state == "serving":
                world.stick(worker_id)
        case 16:
            world.cancel(OpId(choose.randint(1, world.core.house.count + 1)))
        case _:
            pass


def _gets_well(world: World) -> None:
    world.heal()
    world.order(Order(Kind.RESUME))
    world.run(400)
    world.heal()  # a zygote that was stopped while it loaded
    world.run(200)
    world.random.seed(1)  # the reload that brings the repaired code must not meet a config that is refused
    world.order(Order(Kind.RELOAD))
    world.run(300)
    house = world.core.house
    still = [op for op in house.open_operations]
    assert not still, f"long after the last fault these go on: {still}"
    for pool in house.pools.values():
        serving = world.serving(pool.name)
        assert len(serving) == pool.wish, f"{pool.name}: {len(serving)} serve, the wish is {pool.wish}"
        assert {c.id.generation for c in serving} <= {pool.active}, f"{pool.name}: more than one generation serves"
        assert sum(w.phase in CAPACITY for w in pool.workers()) == pool.wish
    recent = [at for at, _ in world.forks if at > world.now - 100]
    assert not recent, f"{len(recent)} forks while all was well"


def _stops(world: World) -> None:
    world.order(Order(Kind.RELOAD))
    world.run(world.random.choice([0.0, 0.1, 0.3]))
    world.order(Order(Kind.STOP))
    if world.random.random() < 0.3:
        world.order(Order(Kind.STOP))
    world.run(60)
    assert world.exited == 0, f"asked to stop, ended with {world.exited}"
    assert not world.alive(), "stopped, and workers live"
    assert not world.core.house.open_operations, "stopped, and operations are open"
