"""Saves what the next daemon needs if this one dies: its state, beside the lock of its family.

Adopts no process (`adopt.py` does) and decides nothing. A daemon that ends in good order removes both.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from srvd.core.model import OpId
from srvd.daemon.children.commons import BELL
from srvd.daemon.control.event_log import EventLogState
from srvd.daemon.control.requests import RequestsState
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop
from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.state_file import StateFile
from srvd.daemon.state import handover
from srvd.daemon.state.model import Handover
from srvd.linux.processes import process, procfs

__all__ = ["StateSaver"]


class StateSaver:
    """Saves the state of one running daemon. `collect`: returns the state, gives its descriptors to the table."""

    def __init__(
        self,
        collect: Callable[[FdTable], Handover],
        family_lock: FamilyLock,
        store_copy: StoreCopy,
        path: str,
        warn: Callable[[str], None],
    ) -> None:
        """`path`: of the state file."""
        self._collect = collect
        self._lock = family_lock
        self._file = StateFile(path, store_copy, self._content, warn)
        self._starts: dict[str, int] = {}
        self._ended: dict[OpId, Any] = {}  # cache of encoded operations that have ended
        self._boot = envelope.boot_id()
        if family_lock.path and not family_lock.rendezvous:
            warn(f"{family_lock.path} could not be written; should this daemon die, its workers leave, too")

    def attach(self, loop: Loop) -> None:
        """Begin to write the state."""
        if self._lock.rendezvous:
            self._file.attach(loop)

    def touch(self) -> None:
        """Note a change: the state is written at the end of this turn of the loop, unless `save` is called before."""
        self._file.touch()

    def save(self) -> None:
        """Write changes at once, before a client is told of them."""
        self._file.save()

    def close(self, *, remove: bool) -> None:
        """Stop writing. `remove`: delete state and lock, because no process of the family is left."""
        self._file.close(remove=remove and self._lock.path != "")
        self._lock.close(remove=remove)

    def _content(self) -> bytes:
        table = FdTable()
        found = self._collect(table)
        if not found.state.started:
            return b""
        shell = found.shell
        processes = {envelope.name_of(zygote.id): zygote.pid for zygote in shell.family.zygotes}
        processes |= {envelope.name_of(worker.id): worker.pid for worker in shell.family.workers}
        self._starts = {
            name: self._starts.get(name) or _start_of(pid, table.find(f"{name} pidfd"))
            for name, pid in processes.items()
            if pid
        }
        shared = {
            name: os.fstat(fd).st_ino
            for name, fd in table.table.items()
            if name == BELL or name.startswith("listener ")
        }
        # The next daemon reads keys of certificates from their own files; the state file shall hold no second copy.
        bare = {revision: config._replace(tls={}) for revision, config in shell.configs.items()}
        control = shell.control._replace(memory=RequestsState(EventLogState(0, ()), ()))
        state = handover.pack(Handover(found.state, shell._replace(configs=bare, control=control)), self._ended)
        return envelope.pack(
            envelope.Envelope(self._boot, self._starts, shared, envelope.sums(shell.configs[shell.current]), state)
        )


def _start_of(pid: int, pidfd: int) -> int:
    """Return the start time of a process; 0 if it has ended, because another one may have its pid."""
    start = procfs.start_time(pid)
    return 0 if process.is_over(pidfd) else start
