"""The first events of a daemon that adopts a family: which processes came, and which of the state's are gone.

Adopts nothing and decides nothing: the core does, in `core/reports/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from srvd.core.events import Event, Resumed, WorkerGone, ZygoteGone
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.processes import Family
from srvd.daemon.children.worker import death_of
from srvd.daemon.family.callers import Orphan
from srvd.daemon.fd_table import FdTable
from srvd.daemon.recovery.envelope import Member
from srvd.daemon.recovery.gathering import Gathering
from srvd.daemon.state.model import Shell
from srvd.ids import WorkerId
from srvd.linux.processes.process import Ended
from srvd.linux.scoreboard import Board, LaneFacts

__all__ = ["deaths", "first_events"]


def first_events(gathering: Gathering, shell: Shell, table: FdTable) -> list[Event]:
    """Return the events in their order. `table`: has the scoreboards of `shell`, which tell what the dead were in."""
    heard, former, family = gathering.heard, gathering.former, shell.family
    alive = former.alive.keys()
    zygotes = [one.id for one in family.zygotes if one.id not in alive]
    return [
        _resumed(heard, gathering.strangers),
        *(ZygoteGone(zygote, "it ended with its daemon, or after it") for zygote in zygotes),
        *deaths(former.found.state, family, table, alive, _told_ends(heard)),
    ]


def deaths(
    state: SupervisorState, family: Family, table: FdTable, alive: Set[Member], ended: Mapping[WorkerId, Ended]
) -> list[WorkerGone]:
    """Return the events for workers that have a pid in the core's state and are gone.

    The family does not have them all: of some the daemon had seen the end when it saved, and had not told the core.
    """
    slots = {one.id: one.slot for one in family.workers}
    forms = {one.generation: one for one in family.commons}
    lost = []
    for one in (worker for pool in state.pools.values() for worker in pool.workers()):
        if one.pid is not None and one.id not in alive:
            form, facts = forms.get(one.id.generation_id), LaneFacts()
            if one.id in slots and form is not None and (fd := table.find(form.name)) >= 0:
                facts = Board(fd, form.slots, form.lanes).read(slots[one.id])
            lost.append(WorkerGone(one.id, death_of(ended.get(one.id, Ended()), facts, unseen=True)))
    return lost


def _resumed(heard: list[Orphan], strangers: list[Orphan]) -> Resumed:
    workers = [(orphan.id, orphan.call.draining) for orphan in heard if isinstance(orphan.id, WorkerId)]
    children = [
        WorkerId(orphan.call.pool, orphan.call.generation, serial)
        for orphan in (*heard, *strangers)
        for serial, _ in (*orphan.call.children, (orphan.call.serial, 0))
    ]
    return Resumed(
        tuple(sorted(worker for worker, draining in workers if not draining)),
        tuple(sorted(worker for worker, draining in workers if draining)),
        tuple(sorted(children)),
    )


def _told_ends(heard: list[Orphan]) -> dict[WorkerId, Ended]:
    """Return how workers ended while there was no daemon, as reported by their zygotes."""
    return {
        WorkerId(orphan.call.pool, orphan.call.generation, serial): ended
        for orphan in heard
        for serial, ended in orphan.ends()
    }
