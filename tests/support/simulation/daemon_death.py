"""The daemon of the simulated world dies, and another one goes on with its state and whoever is left.

Says what a death does to the world (`world.py`); what must be true all the time stays in `claims.py`.
"""

from __future__ import annotations

from functools import partial

import msgpack

from srvd.core.events import Resumed, WorkerGone, WorkerReport, WorkerSaid, ZygoteGone
from srvd.core.model import Death, Phase
from srvd.core.state import snapshot
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import SupervisorState
from srvd.core.supervisor import Supervisor
from srvd.ids import WorkerId
from tests.support.simulation.processes import Child
from tests.support.simulation.world import World


def carried(state: SupervisorState) -> SupervisorState:
    """The same state, after it was bytes."""
    return snapshot.load(msgpack.unpackb(msgpack.packb(snapshot.dump(state)), strict_map_key=False))


def daemon_dies(world: World) -> None:
    """Now. What was said to it and not heard is lost; the next daemon comes at once."""
    state = carried(world.core.state)
    if not state.started or state.stop is not None or world.exited is not None:
        return  # the next start begins anew
    world.agenda = [(when, number, what) for when, number, what in world.agenda if callable(what)]
    world.agenda.sort()
    for mother in world.mothers.values():
        # One that loads asked the kernel for it; one that was told to leave has heard that, or hears it again.
        mother.dead = mother.dead or mother.state == "loading"
        mother.owes = NEVER
        if mother.deaf:  # it does not call, and is ended for it
            world.later(partial(world.lose_zygote, mother), 5.0, 5.1)
    serving, leaving = [], []
    for child in list(world.children.values()):
        _outlives(world, state, child)
        if child.id in world.children and not child.dead and world.random.random() < 0.9:  # else it is busy
            if child.state == "serving":
                serving.append(child.id)
            elif child.state == "draining":
                leaving.append(child.id)
    world.core = Supervisor(state=state)
    known = {worker.id: worker.phase for pool in state.pools.values() for worker in pool.workers()}
    world.feed(Resumed(tuple(serving), tuple(leaving)))
    for mother in [mother for mother in world.mothers.values() if mother.dead]:
        world.feed(ZygoteGone(mother.id, "it ended with its daemon, or after it"))
    for child in [child for child in world.children.values() if child.dead]:
        world.feed(WorkerGone(child.id, Death(unseen=True)))
    for child in list(world.children.values()):
        if child.state == "serving" and child.id not in serving and known[child.id] is Phase.OPENING:
            world.later(WorkerSaid(child.id, WorkerReport.SERVING), 0.1, 3.0)


def _outlives(world: World, state: SupervisorState, child: Child) -> None:
    """Who has not begun to accept does not; of who was never known nothing is left, not even a report."""
    phase = _phase(state, child.id)
    if child.state in ("booting", "standby"):
        child.dead = True
    if phase in (Phase.ASKED, Phase.CANCELLED, None):
        del world.children[child.id]


def _phase(state: SupervisorState, worker: WorkerId) -> Phase | None:
    generation = state.pools[worker.pool].generations.get(worker.generation)
    known = generation.workers.get(worker.serial) if generation is not None else None
    return None if known is None else known.phase
