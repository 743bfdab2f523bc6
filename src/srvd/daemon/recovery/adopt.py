"""Adopts the family of a daemon that died, at the next start: makes what the new daemon goes on with.

Gives no order before all is known. By `entry/succeed.py` the new daemon goes on with the result. A living member that
has not called yet is identified by pid and start time and adopted all the same: it is busy, and calls when it can.
"""

from __future__ import annotations

from collections.abc import Callable

from srvd.config.settings import Config
from srvd.core.events import Event
from srvd.daemon.children.commons import SPARE_SLOTS
from srvd.daemon.children.worker import WorkerState
from srvd.daemon.family.callers import Calls
from srvd.daemon.fd_table import FdTable
from srvd.daemon.recovery.family_fds import give_own, give_shared
from srvd.daemon.recovery.first_events import first_events
from srvd.daemon.recovery.former import Former
from srvd.daemon.recovery.gathering import Gathering
from srvd.daemon.recovery.rejects import Reject, send_away, unknown_children
from srvd.daemon.state.model import Handover
from srvd.record import Record

__all__ = ["Adoption", "find"]


class Adoption(Record):
    """What the next daemon goes on with."""

    found: Handover
    table: FdTable
    events: list[Event]  # the first ones, in order
    rejects: list[Reject]  # processes that were sent away
    sums: dict[str, int]  # checksums of the certificates in force, by listener

    def with_room(self, config: Config, say: Callable[[str], None]) -> Config:
        """Return the configuration with the `max_workers` that can be in force: the existing scoreboards cannot grow.

        Sets the limit in the core's state, too. say: called with each warning.
        """
        boards = self.found.shell.family.commons
        most = min(((one.slots - SPARE_SLOTS) // 2 for one in boards), default=config.daemon.max_workers)
        wanted, state = config.daemon.max_workers, self.found.state
        limit = state.limit = min(wanted, most)
        if limit < wanted:
            say(
                f"daemon.max_workers: {limit} stays in force, {wanted} was not taken over: the scoreboards of the "
                "daemon that died have no more room, and its workers use them; stop srvd and start it to change that"
            )
        wished = sum(pool.desired for pool in state.pools.values() if not pool.removed)
        if wished > limit:
            say(
                f"daemon.max_workers is {limit}, and {wished} workers run by orders that were given before; they stay, "
                "and a reload is refused, until `srvctl scale` has brought that down"
            )
        return config._replace(daemon=config.daemon._replace(max_workers=limit))


def find(former: Former, calls: Calls, say: Callable[[str], None]) -> Adoption | None:
    """Wait for calls of the members in the state; None: no member lives. `say`: called when the wait becomes long.

    Raises `SystemRefused`: members live, but do not bring what is needed. In this case, and after None, no process has
    received an order, and all descriptors are closed.
    """
    gathering = Gathering(former)
    try:
        if former.alive:
            gathering.wait(calls, say)
        if gathering.heard:
            return _make(gathering)
    except BaseException:
        gathering.close()
        raise
    gathering.close()
    return None


def _make(gathering: Gathering) -> Adoption:
    former, heard = gathering.former, gathering.heard
    alive, known = former.alive, former.found.shell.family
    table = FdTable()
    shell = give_shared(gathering, table)
    events = first_events(gathering, shell, table)
    give_own(gathering, table)
    came = {orphan.id for orphan in heard}
    left = shell.family._replace(
        zygotes=tuple(one for one in known.zygotes if one.id in alive),
        workers=tuple(_as_it_is(one, called=one.id in came) for one in known.workers if one.id in alive),
    )
    rejects = [reject for orphan in gathering.strangers for reject in send_away(orphan)]
    ids = set(alive)
    rejects += [reject for orphan in heard for reject in unknown_children(orphan, ids)]
    shell = shell._replace(family=left)
    return Adoption(Handover(former.found.state, shell), table, events, rejects, former.envelope.sums)


def _as_it_is(one: WorkerState, *, called: bool) -> WorkerState:
    """Return the worker's state, with `ready` set if the worker called: the state is older than the daemon's death, and
    only workers that have been ready call.
    """
    return one._replace(ready=True) if called else one
