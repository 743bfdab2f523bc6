"""What a daemon is made of, before it is one: `entry/start.py` makes them, or finds them after a daemon that died.

Does nothing but to say what of it a service manager should keep.
"""

from __future__ import annotations

from srvd.core.supervisor import Supervisor
from srvd.daemon.children.commons import Commons
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.listeners import Listeners
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.upgrade.program import Program
from srvd.daemon.upgrade.source_archive import SourceArchive
from srvd.linux.systemd import Unit
from srvd.log import Log
from srvd.record import Record

__all__ = ["Parts"]


class Parts(Record):
    """What is new at a start, and handed over at an upgrade."""

    commons: Commons
    listeners: Listeners
    core: Supervisor
    program: Program
    unit: Unit
    keepsake: SourceArchive
    bond: FamilyLock
    deposit: StoreCopy
    log: Log

    def to_store(self) -> dict[str, int]:
        """What the service manager should keep for the next daemon, by its name there; the first ones first."""
        return self.listeners.to_store() | self.deposit.to_store(self.bond.lock)
