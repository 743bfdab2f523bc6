"""What a daemon leaves to the next one, should it die: the bond of its family, and its state.

Adopts nobody (`adopt.py`) and decides nothing. Of a daemon that ends in good order nothing is left.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from srvd.config.settings import Config
from srvd.core.events import Event
from srvd.core.model import OpId
from srvd.core.state.model import SupervisorState
from srvd.daemon import handover
from srvd.daemon.children.commons import BELL
from srvd.daemon.children.performer import Performer
from srvd.daemon.components import Parts
from srvd.daemon.control.event_log import EventLogState
from srvd.daemon.control.requests import RequestsState
from srvd.daemon.family.callers import Calls, users_of
from srvd.daemon.fd_table import FdTable
from srvd.daemon.handover import Handover
from srvd.daemon.loop import Loop
from srvd.daemon.recovery import envelope
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.recovery.rejects import Reject
from srvd.daemon.recovery.state_file import StateFile
from srvd.errors import SystemRefused
from srvd.linux.processes import process, procfs

if TYPE_CHECKING:
    from srvd.daemon.recovery.recover import Found

__all__ = ["StateSaver"]


class Owner(Protocol):
    """The daemon whose heritage it is."""

    def emit(self, event: Event) -> None: ...

    def handover(self, kept: FdTable) -> Handover:
        """All that it knows; its descriptors go to `kept`."""


class StateSaver:
    """Of one running daemon."""

    def __init__(self, owner: Owner, parts: Parts, path: str, warn: Callable[[str], None]) -> None:
        """`path` is the state file's."""
        bond = parts.bond
        self._owner = owner
        self._bond = bond
        self._warn = warn
        self._file = StateFile(path, parts.deposit, self._will, warn)
        self._starts: dict[str, int] = {}
        self._ended: dict[OpId, Any] = {}  # operations, as they were encoded
        self._boot = envelope.boot_id()
        self._latecomers: LateCallers | None = None
        if bond.path and not bond.rendezvous:
            warn(f"{bond.path} could not be written; should this daemon die, its workers leave, too")

    def attach(self, loop: Loop) -> None:
        if self._bond.rendezvous:
            self._file.attach(loop)

    def hear(self, found: Found, performer: Performer, house: SupervisorState, loop: Loop) -> None:
        """From now on, who comes late of the family that was found at the start."""
        if found.calls is not None:
            self._latecomers = LateCallers(found.calls, performer, house, self._owner.emit, found.strays)
            self._latecomers.attach(loop)

    def carry(self, kept: FdTable) -> tuple[int, ...]:
        """Who was sent away and may still live, for the next program: pids; their descriptors go to `kept`."""
        return () if self._latecomers is None else self._latecomers.carry(kept)

    def resume(
        self,
        strays: Sequence[int],
        configs: Iterable[Config],
        kept: FdTable,
        performer: Performer,
        house: SupervisorState,
        loop: Loop,
    ) -> None:
        """The same in the next program, if the former one still waited for anybody."""
        left = [Reject(pid, kept.take(f"stray {pid}")) for pid in strays]
        if not self._bond.rendezvous or not (left or performer.missing()):
            return
        try:
            calls = Calls(self._bond.rendezvous, users_of(configs))
        except SystemRefused as exc:  # somebody else has taken the name; no reason to undo the upgrade
            self._warn(exc.message)
            return
        self._latecomers = LateCallers(calls, performer, house, self._owner.emit, left)
        self._latecomers.attach(loop)

    def touch(self) -> None:
        """Something changes in this turn of the loop: it is written at the end of it, unless that is done before."""
        self._file.touch()

    def save(self) -> None:
        """Write at once what has changed: a client is about to be told of it."""
        self._file.save()

    def close(self, *, remove: bool) -> None:
        """`remove` when nobody is left behind."""
        self._file.close(remove=remove and self._bond.path != "")
        if self._latecomers is not None:
            self._latecomers.close()
        self._bond.close(remove=remove)

    def _will(self) -> bytes:
        kept = FdTable()
        found = self._owner.handover(kept)
        if not found.house.started:
            return b""
        shell = found.shell
        processes = {envelope.name_of(zygote.id): zygote.pid for zygote in shell.family.zygotes}
        processes |= {envelope.name_of(worker.id): worker.pid for worker in shell.family.workers}
        self._starts = {
            name: self._starts.get(name) or _start_of(pid, kept.find(f"{name} pidfd"))
            for name, pid in processes.items()
            if pid
        }
        shared = {
            name: os.fstat(fd).st_ino for name, fd in kept.table.items() if name == BELL or name.startswith("listener ")
        }
        # Keys of certificates are read anew by whoever needs them: a file is no place for a second copy.
        bare = {revision: config._replace(tls={}) for revision, config in shell.configs.items()}
        control = shell.control._replace(memory=RequestsState(EventLogState(0, ()), ()))
        state = handover.pack(Handover(found.house, shell._replace(configs=bare, control=control)), self._ended)
        return envelope.pack(
            envelope.Envelope(self._boot, self._starts, shared, envelope.sums(shell.configs[shell.current]), state)
        )


def _start_of(pid: int, pidfd: int) -> int:
    """When this process was started; 0 if it is over: then the pid may be another's."""
    start = procfs.start_time(pid)
    return 0 if process.is_over(pidfd) else start
