"""A random walk of the core through the simulated world: fate and people do what they like, then things get well
again, and in the end everybody must be where the wish says, every operation ended, and a stop leave nothing.

`python -m tests.support.simulation.walk FIRST LAST` walks by hand and prints the transcript of the first walk that
breaks.
"""

from __future__ import annotations

import sys

from srvd.core.lifecycle import CAPACITY
from srvd.core.model import Death, ErrorCode, Kind, OpId, Order
from tests.support.simulation.claims import watch
from tests.support.simulation.processes import NEW_CONFIGS, SHOP, Broken, Claims, Weather
from tests.support.simulation.world import World

APPS = ("good", "good", "good", "good", "raises", "exits", "hangs", "boot_crash", "boot_raise", "boot_hang", "sick",
        "sick_hang", "warm_hang", "crashes")  # fmt: skip
DEATHS = (Death(signal=9), Death(exit_code=3), Death(signal=11), Death(signal=9, out_of_memory=True))
PAUSES = (0.0, 0.001, 0.01, 0.1, 0.5, 3.0, 12.0)


def one_walk(seed: int, steps: int = 120, more: tuple[type[Claims], ...] = ()) -> World:
    """Raises `Broken` with the seed and the last lines of the transcript when a claim does not hold. `more`: who looks
    on besides those of `claims.py`."""
    world = World(seed)
    watch(world)
    world.claims += [kind(world) for kind in more]
    try:
        _walk(world, steps)
    except Exception as exc:  # a core that raises is as broken as one that does the wrong thing
        msg = f"seed {seed} after {world.events} events: {exc!r}\n{world.transcript(60)}"
        raise Broken(msg, world.transcript()) from exc
    return world


def _walk(world: World, steps: int) -> None:
    choose = world.random
    if choose.random() < 0.15:
        _new_weather(world)
    world.start()
    world.run(choose.choice([0.1, 0.5, 30, 30]))
    for _ in range(steps):
        if world.exited is not None:
            break
        _something_happens(world)
        world.run(choose.choice(PAUSES))
    if world.exited is None:
        if choose.random() < 0.8:
            _gets_well(world)
        _stops(world)
    assert world.exited == (0 if world.core.state.doomed is None else 1), f"ended with {world.exited}"
    assert not world.children, "ended, and workers live"
    assert not world.mothers, "ended, and zygotes live"


def _something_happens(world: World) -> None:
    half_done = any(op.fault is not None and op.fault.code is ErrorCode.PARTIAL and (op.ended or 0.0) > world.now - 5
                    for op in world.core.state.operations.values())  # fmt: skip
    if half_done and world.random.random() < 0.7:  # a reload that came true in part: that is when people go back
        world.order(Order(Kind.ROLLBACK))
        return
    match world.random.randrange(21):
        case n if n < 10:
            _an_order(world)
        case 10 | 11 | 12 | 13:
            _a_process_fares_ill(world)
        case 14 | 15 | 16:
            _new_weather(world)
        case 18:
            _a_change_over_goes_wrong(world)
        case 17:
            world.config = world.random.choice(NEW_CONFIGS)
        case _:
            world.cancel(OpId(world.random.randint(max(1, world.core.state.count - 4), world.core.state.count + 1)))


def _an_order(world: World) -> None:
    choose = world.random
    pool = choose.choice(["web", "web", "api", "api", "jobs"])
    somewhere = choose.choice(["", "web", "api"])
    match choose.randrange(12):
        case 0:
            busy = tuple(str(child.id) for child in world.serving(pool) if choose.random() < 0.5)
            world.order(Order(Kind.SCALE, pool, choose.randint(0, 7), busy=busy))
        case 1:
            for _ in range(choose.randint(1, 6)):
                world.order(Order(Kind.SCALE, pool, choose.choice([1, 1, -1, 2]), relative=True))
        case 2:
            world.order(Order(Kind.SCALE, pool, reset=True, timeout=choose.choice([0.0, 0.05, 2.0])))
        case 3 | 4 | 5:
            world.order(
                Order(Kind.RELOAD, somewhere, wait_bake=choose.random() < 0.2, timeout=choose.choice([0.0, 0.0, 1.0]))
            )
        case 6:
            world.order(Order(Kind.ROLLBACK, somewhere))
        case 7:
            known = world.living()
            worker = str(choose.choice(known).id) if known and choose.random() < 0.5 else ""
            world.order(Order(Kind.RECYCLE, worker.partition("/")[0] or pool, worker=worker))
        case 8:
            for _ in range(choose.choice([1, 1, 3])):
                world.order(Order(choose.choice([Kind.PAUSE, Kind.RESUME, Kind.RESUME]), somewhere))
        case 9:
            world.order(Order(choose.choice([Kind.PAUSE, Kind.RESUME]), pool))
            world.order(Order(Kind.RESUME, pool))
        case 10:
            world.order(Order(Kind.UPGRADE, check=choose.random() < 0.2))
        case _:
            world.order(Order(Kind.REOPEN))


def _a_process_fares_ill(world: World) -> None:
    choose = world.random
    known, up = world.living(), [m for m in world.mothers.values() if m.state == "up" and not m.dead]
    match choose.randrange(10):
        case 0 | 1 | 2 if known:
            world.die(choose.choice(known), choose.choice(DEATHS))
        case 3 if known:
            child = choose.choice(known)
            if child.state == "serving":
                choose.choice([world.stick, world.fall_silent])(child)
            else:
                world.stop_for_a_while(child)
        case 8 if known:
            child = choose.choice(known)
            if child.state == "serving":
                world.wear_out(child)
        case 9 if known:
            _a_pool_is_too_large(world, choose.choice(known).id.pool)
        case 4 if up:
            world.lose_zygote(choose.choice([*up, up[-1]]))
        case 5 if up:
            choose.choice(up).deaf = True
        case 6 | 7 if up:  # what its workers need has gone, or is there again
            choose.choice([*up, up[-1], up[-1]]).app = choose.choice(
                ["good", "good", "boot_crash", "boot_raise", "boot_hang", "crashes"]
            )
        case _:
            pass


def _a_pool_is_too_large(world: World, pool: str) -> None:
    """Now, or each of its workers whatever it is replaced by."""
    for _ in range(world.random.choice([1, 1, 4])):
        for child in world.serving(pool):
            if not child.dead:
                world.outgrow(child)
        world.run(world.random.choice([0.1, 3.0, 30.0]))


def _a_change_over_goes_wrong(world: World) -> None:
    """The code is good until it takes over."""
    world.weather = world.weather._replace(app="good", fork_fails=0.0)
    world.order(Order(Kind.RELOAD, world.random.choice(["", "web"])))
    world.run(world.random.choice([0.3, 0.5, 0.7, 1.0]))
    up = [m for m in world.mothers.values() if m.state == "up" and not m.dead]
    if up and world.random.random() < 0.5:
        world.lose_zygote(up[-1])
    elif up:
        up[-1].app = world.random.choice(["boot_hang", "boot_crash", "crashes"])
    world.run(world.random.choice([0.1, 3.0, 20.0]))


def _new_weather(world: World) -> None:
    choose = world.random
    world.weather = Weather(
        choose.choice(APPS),
        fork_fails=choose.choice([0, 0, 0.3, 1.0]),
        deaf=choose.choice([0, 0, 0.2]),
        stubborn=choose.choice([0, 0, 0.2]),
        liar=choose.choice([0, 0, 0, 0.05]),
        config_refused=choose.choice([0, 0.3]),
    )


def _gets_well(world: World) -> None:
    world.heal()
    world.order(Order(Kind.RESUME))
    world.run(400)
    world.config = SHOP
    world.heal()  # a zygote that was stopped while it loaded
    world.order(Order(Kind.RELOAD))
    world.run(300)
    state = world.core.state
    assert not state.open_operations, f"long after the last fault these go on: {state.open_operations}"
    assert list(state.pools) == [spec.name for spec in SHOP]
    for pool in state.pools.values():
        serving = world.serving(pool.name)
        assert len(serving) == pool.desired, f"{pool.name}: {len(serving)} serve, the wish is {pool.desired}"
        assert {c.id.generation for c in serving} <= {pool.active}, f"{pool.name}: more than one generation serves"
        assert sum(w.phase in CAPACITY for w in pool.workers()) == pool.desired
        assert list(pool.generations) == [pool.active], f"{pool.name} keeps {list(pool.generations)}"
        assert pool.backoff.strikes == 0, f"{pool.name} is not forgiven"
    assert world.core.next_deadline() is None, "all is well, and a deadline is set"


def _stops(world: World) -> None:
    """While something is under way, perhaps; perhaps in a hurry."""
    choose = world.random
    _an_order(world)
    world.order(Order(Kind.RELOAD))
    world.run(choose.choice([0.0, 0.1, 0.3, 0.6]))
    world.order(Order(Kind.STOP, now=choose.random() < 0.2))
    world.run(choose.choice([0.0, 0.5]))
    if choose.random() < 0.3 and world.exited is None:
        world.order(Order(Kind.STOP))
    world.run(60)
    assert not world.core.state.open_operations, "stopped, and operations are open"


def main(first: int, last: int) -> None:
    for seed in range(first, last + 1):
        try:
            one_walk(seed)
        except Broken as broken:
            sys.exit(f"{broken.transcript}\n{str(broken).splitlines()[0]}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
