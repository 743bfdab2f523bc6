"""The first events of a daemon that adopts a family: which processes came, and which of the state's are gone.

Adopts nothing and decides nothing: the core does, in `core/reports/`.
"""

from __future__ import annotations

from collections.abc import Set

from srvd.core.events import Event, Resumed, WorkerGone, ZygoteGone
from srvd.core.model import Death
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.worker import death_of
from srvd.daemon.family.callers import Orphan
from srvd.daemon.fd_table import FdTable
from srvd.daemon.recovery.envelope import Member
from srvd.daemon.recovery.former import Alive
from srvd.daemon.recovery.gathering import Gathering
from srvd.daemon.state.model import Shell
from srvd.ids import WorkerId
from srvd.linux.processes.process import Ended
from srvd.linux.scoreboard import Board, LaneFacts

__all__ = ["first_events", "untold_deaths"]


def first_events(gathering: Gathering, shell: Shell, table: FdTable) -> list[Event]:
    """Return the events in their order. `table`: has the scoreboards of `shell`, which tell what the dead were in."""
    heard, alive = gathering.heard, gathering.former.alive
    deaths = _deaths(shell, table, alive, _told_ends(heard))
    return [
        _resumed(heard, gathering.strangers),
        *deaths,
        *untold_deaths(gathering.former.found.state, {one.id for one in shell.family.workers}),
    ]


def untold_deaths(state: SupervisorState, known: Set[WorkerId]) -> list[Event]:
    """Return the events for workers of which the daemon had seen the end when it saved, and had not told the core.

    known: the workers of which the daemon had a process.
    """
    workers = (worker for pool in state.pools.values() for worker in pool.workers())
    return [WorkerGone(one.id, Death(unseen=True)) for one in workers if one.pid is not None and one.id not in known]


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


def _deaths(shell: Shell, table: FdTable, alive: dict[Member, Alive], ended: dict[WorkerId, Ended]) -> list[Event]:
    """Return the events for zygotes and workers that are in the state and are gone."""
    known = shell.family
    lost: list[Event] = [
        ZygoteGone(one.id, "it ended with its daemon, or after it") for one in known.zygotes if one.id not in alive
    ]
    forms = {one.generation: one for one in known.commons}
    for one in known.workers:
        if one.pid and one.id not in alive:
            form, facts = forms.get(one.id.generation_id), LaneFacts()
            if form is not None and (fd := table.find(form.name)) >= 0:
                facts = Board(fd, form.slots, form.lanes).read(one.slot)
            lost.append(WorkerGone(one.id, death_of(ended.get(one.id, Ended()), facts, unseen=True)))
    return lost


def _told_ends(heard: list[Orphan]) -> dict[WorkerId, Ended]:
    """Return how workers ended while there was no daemon, as reported by their zygotes."""
    return {
        WorkerId(orphan.call.pool, orphan.call.generation, serial): ended
        for orphan in heard
        for serial, ended in orphan.ends()
    }
