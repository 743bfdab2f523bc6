"""Collects the state for the next program or the next daemon from the parts of this one.

Writes nothing: `upgrade/replace.py` hands the state over, `recovery/saver.py` writes it to a file.
"""

from __future__ import annotations

from srvd import __version__
from srvd.daemon.control.server import ControlServer
from srvd.daemon.fd_table import FdTable
from srvd.daemon.foundation import Foundation
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.state.model import Handover, Shell
from srvd.wire import links

__all__ = ["StateCollector"]


class StateCollector:
    """Collects the state of one daemon. `began`: time of its first start in monotonic seconds; upgrades keep it."""

    def __init__(self, base: Foundation, control: ControlServer, late_callers: LateCallers, began: float) -> None:
        self._base = base
        self._control = control
        self._late_callers = late_callers
        self._began = began

    def collect(self, table: FdTable) -> Handover:
        """Return the state; the descriptors that belong to it go to `table`."""
        base, parts = self._base, self._base.parts
        table.give("source archive", parts.source_archive.fd)
        parts.store_copy.save(table)
        shell = Shell(
            version=__version__,
            protocol=links.PROTOCOL,
            program=parts.program,
            source=base.source.save(),
            daemonized=base.announcer.daemonized,
            began=self._began,
            configs=dict(base.configs.configs),
            current=base.configs.current,
            listening=parts.listeners.save(table),
            family=base.performer.processes.save(table),
            overdue=base.request_timeout.save(),
            control=self._control.save(table),
            unit=parts.unit,
            stored=tuple(base.notifier.stored),
            lock=parts.family_lock.save(table),
            rejects=self._late_callers.save(table),
        )
        return Handover(parts.core.state, shell)
