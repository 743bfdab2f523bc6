"""The parts of a daemon that outlive its program: new ones, those of a former program, those of a daemon that died.

Starts no process and opens no listener: the first zygotes and all further parts are made from these (`foundation.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from srvd.config.settings import DaemonSettings
from srvd.core.supervisor import Supervisor
from srvd.daemon.children.commons import Commons
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.listeners import Listeners
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.upgrade.program import Program, this_program
from srvd.daemon.upgrade.source_archive import SourceArchive
from srvd.linux.systemd import Unit
from srvd.log import Log
from srvd.record import Record

if TYPE_CHECKING:
    from srvd.daemon.fd_table import FdTable
    from srvd.daemon.recovery.adopt import Adoption
    from srvd.daemon.state.model import Handover

__all__ = ["Parts", "adopted_parts", "new_parts", "restored_parts"]


class Parts(Record):
    commons: Commons
    listeners: Listeners
    core: Supervisor
    program: Program
    unit: Unit
    source_archive: SourceArchive
    family_lock: FamilyLock
    store_copy: StoreCopy
    log: Log

    def to_store(self) -> dict[str, int]:
        """Return the descriptors for the service manager's store, by name, the most important ones first."""
        return self.listeners.to_store() | self.store_copy.to_store(self.family_lock.lock)


def new_parts(
    settings: DaemonSettings, unit: Unit, preconditions: Preconditions, inherited: Iterable[int], log: Log
) -> Parts:
    """Make new parts. `inherited`: listeners of processes that were sent away. Raises `OSError`."""
    family_lock = preconditions.family_lock
    listeners = Listeners(unit)
    listeners.inherit(inherited)
    return Parts(
        Commons.made(settings.max_workers),
        listeners,
        Supervisor(limit=settings.max_workers),
        this_program(),
        unit,
        SourceArchive(),
        family_lock,
        StoreCopy.create(family_lock.rendezvous, unit),
        log,
    )


def restored_parts(found: Handover, table: FdTable, max_workers: int, family_lock: FamilyLock, log: Log) -> Parts:
    """Make the parts that a former program of this process had. Raises `Unsupported`, `OSError`."""
    state, shell = found
    return Parts(
        Commons.taken(table, max_workers),
        Listeners.restore(shell.listening, table),
        Supervisor(state=state),
        this_program(shell.program.command),
        shell.unit,
        SourceArchive(table.find("source archive")),
        family_lock,
        StoreCopy.restore(shell.lock.rendezvous, shell.unit, table),
        log,
    )


def adopted_parts(adoption: Adoption, max_workers: int, unit: Unit, preconditions: Preconditions, log: Log) -> Parts:
    """Make the parts from those that a daemon that died has left, and new ones. Raises `Unsupported`, `OSError`."""
    handed, table, family_lock = adoption.found, adoption.table, preconditions.family_lock
    listeners = Listeners.restore(handed.shell.listening, table)
    listeners.complete(unit)
    return Parts(
        Commons.taken(table, max_workers, brought=True),
        listeners,
        Supervisor(state=handed.state),
        this_program(),
        unit,
        SourceArchive(),
        family_lock,
        preconditions.left or StoreCopy.create(family_lock.rendezvous, unit),
        log,
    )
