"""All that the core knows as plain maps, for its successor: another program in this process, or another daemon.

Knows neither files nor descriptors nor which of the processes still live; times stay monotonic, so a state is good on
the machine, and since the boot, that it was made on. Pure.
"""

from __future__ import annotations

from typing import Any

from srvd.core.model import OpId
from srvd.core.state.codec import Misfit, codec
from srvd.core.state.model import Operation, SupervisorState
from srvd.errors import Unsupported

__all__ = ["VERSION", "dump", "load"]

VERSION = 1
"""Of the map. It changes when a program that knows only the former number would misunderstand it, and a program reads
its own and the former one. A new field with a default needs no new number to be read from an older state; a program
that does not know the field refuses the state by the field's name."""


def dump(state: SupervisorState, ended: dict[OpId, Any] | None = None) -> dict[str, Any]:
    """Maps, lists, texts, numbers (`inf` among them) and None; nothing in it is shared with the core.

    `ended`: operations that had ended when the same state was dumped before. They do not change, and are not encoded
    again; the table is brought up to date.
    """
    former = {} if ended is None else ended
    one = codec(Operation)
    operations = {op.id: former.get(op.id) or one.dump(op) for op in state.operations.values()}
    if ended is not None:
        ended.clear()
        ended.update((number, plain) for number, plain in operations.items() if plain["ended"] is not None)
    bare: Any = object.__new__(SupervisorState)
    vars(bare).update(vars(state), operations={})
    plain = codec(SupervisorState).dump(bare)
    plain["operations"] = [[number, operation] for number, operation in operations.items()]
    return {"version": VERSION, "house": plain}


def load(plain: Any) -> SupervisorState:
    """The state that `dump` made. Raises `Unsupported`: it is of another version, or does not fit; nothing is kept."""
    version = plain.get("version") if isinstance(plain, dict) else None
    if version != VERSION:
        raise Unsupported(f"read the state: it is of version {version!r}, this program reads version {VERSION}")
    try:
        state: SupervisorState = codec(SupervisorState).load(plain.get("house"))
        _check(state)
        _derive(state)
    except Misfit as misfit:
        raise Unsupported(f"read the state: {misfit}; it was written by another program") from misfit
    return state


def _derive(state: SupervisorState) -> None:
    """Makes anew what is not carried."""
    alive = {worker.id for pool in state.pools.values() for worker in pool.workers() if worker.is_capacity}
    for op in state.operations.values():
        op.left = set(op.targets & alive)


def _check(state: SupervisorState) -> None:
    """What refers to something that is not there would be found by a crash, later. Raises `Misfit`."""
    for name, pool in state.pools.items():
        for number in (pool.active, pool.parked, pool.bake and pool.bake.former):
            if number is not None and number not in pool.generations:
                raise Misfit(f"pool {name} has no generation {number}")
    for op in state.open_operations:
        for name, part in op.rollouts.items():
            if name not in state.pools or (not part.committed and part.generation not in state.pools[name].generations):
                raise Misfit(f"operation {op.id} changes {name}@{part.generation}, which is not there")
    if state.stop is not None and state.stop not in state.operations:
        raise Misfit(f"operation {state.stop} is not there")
