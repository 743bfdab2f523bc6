"""What a daemon leaves to the next one, should it die: the bond of its family, and its state.

Adopts nobody (`adoption.py`) and decides nothing. Of a daemon that ends in good order nothing is left.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgpack

from srvd.config.settings import Config
from srvd.core.events import Event
from srvd.core.model import GenerationId
from srvd.core.state import House
from srvd.daemon import adoption, handover
from srvd.daemon.adoption import Will
from srvd.daemon.control_desk import Memory
from srvd.daemon.control_ring import Events
from srvd.daemon.handover import Handover
from srvd.daemon.kept import Kept
from srvd.daemon.latecomers import Latecomers
from srvd.daemon.loop import Loop
from srvd.daemon.parts import Parts
from srvd.daemon.perform import Performer
from srvd.daemon.statefile import StateFile
from srvd.linux import procfs
from srvd.tls import material

if TYPE_CHECKING:
    from srvd.daemon.succession import Found

__all__ = ["Heritage", "sums"]


class Owner(Protocol):
    """The daemon whose heritage it is."""

    def emit(self, event: Event) -> None: ...

    def handover(self, kept: Kept) -> Handover:
        """All that it knows; its descriptors go to `kept`."""


class Heritage:
    """Of one running daemon."""

    def __init__(self, owner: Owner, parts: Parts, path: str, warn: Callable[[str], None]) -> None:
        """`path` is the state file's."""
        bond = parts.bond
        self._owner = owner
        self._bond = bond
        self._file = StateFile(path, parts.deposit, self._will, warn)
        self._starts: dict[str, int] = {}
        self._boot = adoption.boot_id()
        self._latecomers: Latecomers | None = None
        if not bond.rendezvous:
            warn(f"{bond.path} could not be written; should this daemon die, its workers leave, too")

    def attach(self, loop: Loop) -> None:
        if self._bond.rendezvous:
            self._file.attach(loop)

    def hear(self, found: Found, performer: Performer, house: House, loop: Loop) -> None:
        """From now on, who comes late of the family that was found at the start."""
        if found.calls is not None:
            self._latecomers = Latecomers(found.calls, performer, house, self._owner.emit, found.strays)
            missing = found.adoption.late if found.adoption is not None else ()
            self._latecomers.attach(loop, [one for one in missing if isinstance(one, GenerationId)])

    def touch(self) -> None:
        """Something may have changed."""
        self._file.touch()

    def save(self) -> None:
        """Write what is the case now: somebody is about to be told of it."""
        self._file.save()

    def close(self, *, remove: bool) -> None:
        """`remove` when nobody is left behind."""
        self._file.close(remove=remove)
        if self._latecomers is not None:
            self._latecomers.close()
        self._bond.close(remove=remove)

    def _will(self) -> bytes:
        kept = Kept()
        found = self._owner.handover(kept)
        if not found.house.started:
            return b""
        shell = found.shell
        processes = {adoption.name_of(zygote.id): zygote.pid for zygote in shell.family.zygotes}
        processes |= {adoption.name_of(worker.id): worker.pid for worker in shell.family.workers}
        self._starts = {
            name: self._starts.get(name) or procfs.start_time(pid) for name, pid in processes.items() if pid
        }
        shared = {
            name: os.fstat(fd).st_ino
            for name, fd in kept.table.items()
            if name == adoption.SCOREBOARD or name.startswith("listener ")
        }
        # Keys of certificates are read anew by whoever needs them: a file is no place for a second copy.
        bare = {revision: config._replace(tls={}) for revision, config in shell.configs.items()}
        control = shell.control._replace(memory=Memory(Events(0, ()), ()))
        state = handover.pack(Handover(found.house, shell._replace(configs=bare, control=control)))
        return adoption.pack(Will(self._boot, self._starts, shared, sums(shell.configs[shell.current]), state))


def sums(config: Config) -> dict[str, int]:
    """A number for the certificates of each listener, by which it is seen that they have changed."""
    return {name: zlib.crc32(msgpack.packb(material.pack(one))) for name, one in config.tls.items()}
