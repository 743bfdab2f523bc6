"""The daemon that died, as its state names it: what it knew, and the members of its family that still live.

Hears no caller: `gathering.py` does. A living member that never calls is busy, and is known by pid and start time.
"""

from __future__ import annotations

import os

from srvd.daemon.children.processes import Family
from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.envelope import Envelope, Member, boot_id, name_of
from srvd.daemon.state import handover
from srvd.daemon.state.model import Handover
from srvd.errors import Unsupported
from srvd.linux.processes import process, procfs
from srvd.record import Record

__all__ = ["Alive", "Former", "look"]


class Alive(Record):
    pid: int
    pidfd: int


class Former(Record):
    """The state of a daemon that died, and the living members of its family."""

    envelope: Envelope
    found: Handover
    alive: dict[Member, Alive]

    def close(self) -> None:
        for one in self.alive.values():
            os.close(one.pidfd)


def look(data: bytes) -> Former | None:
    """Read the state and find the living members of its family; None: the state is of another boot, no member lives.

    Must run before members can call: a zygote's call then reports every worker that has ended before. Raises
    `Unsupported`: the state cannot be continued; `OSError`: no descriptor is left.
    """
    read = envelope.unpack(data)
    if read.boot != boot_id():
        return None
    found = handover.read(read.state)
    if not found.state.started or found.state.stop is not None:
        raise Unsupported("the former daemon died while it was starting or stopping")
    return Former(read, found, _living(read, found.shell.family))


def _living(read: Envelope, known: Family) -> dict[Member, Alive]:
    """Return the living members of the family, by pid and start time, without zygotes that were still loading: these
    die with their daemon.
    """
    pids: dict[Member, int] = {one.id: one.pid for one in known.workers if one.pid}
    pids |= {one.id: one.pid for one in known.zygotes if one.forks}
    alive: dict[Member, Alive] = {}
    for member, pid in pids.items():
        try:
            pidfd = process.open_pidfd(pid)
        except ProcessLookupError:
            continue
        # In this order: a process that has this start time now had the pid when the pidfd was opened.
        if procfs.start_time(pid) == read.starts.get(name_of(member), -1) and not process.is_over(pidfd):
            alive[member] = Alive(pid, pidfd)
        else:
            os.close(pidfd)
    return alive
