"""The state of a daemon: all that the next program needs to be the same daemon, except descriptors.

Each part makes and restores its own record. `collector.py` puts them together; `handover.py` makes bytes of them.
"""

from __future__ import annotations

from typing import Annotated

from srvd.config.settings import Config
from srvd.config.source import Spelled
from srvd.core.model import Revision
from srvd.core.state.codec import Formerly
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.processes import Family
from srvd.daemon.control import server
from srvd.daemon.family.lock import FamilyLockState
from srvd.daemon.listeners import Listening
from srvd.daemon.upgrade.program import Program
from srvd.ids import WorkerId
from srvd.linux.systemd import Unit
from srvd.record import Record

__all__ = ["Handover", "Shell"]


class Shell(Record):
    """The state of all parts but the core. Contains secrets: keys of certificates, variables of pools."""

    version: str  # of srvd
    protocol: int  # version that the living zygotes and workers speak: `wire/links.py`
    program: Program
    source: Spelled
    daemonized: bool
    began: float  # time of the daemon's first start, monotonic seconds
    configs: dict[Revision, Config]
    current: Revision
    listening: Listening
    family: Family
    overdue: dict[WorkerId, float]
    control: server.ControlState
    unit: Unit  # what the service manager passed at the start
    stored: tuple[str, ...]  # names of the descriptors in its store
    lock: Annotated[FamilyLockState, Formerly("bond")] = FamilyLockState("", "")  # empty: from a version without it
    rejects: Annotated[
        tuple[int, ...], Formerly("strays")
    ] = ()  # pids of processes that were sent away, and may still live


class Handover(Record):
    state: SupervisorState
    shell: Shell
