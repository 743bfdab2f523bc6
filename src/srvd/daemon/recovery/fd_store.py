"""What the service manager keeps for the next daemon: the lock of the family, and a copy of the state in memory.

Knows nothing of the state's content, and sends nothing (`systemd_notifier.py` does). The memfd is stored once and holds
two copies of the state: a write replaces the older one, so a daemon that dies in the middle leaves the other. A daemon
that ends in good order empties the memfd, so that the next one looks for no orphans, even if the manager kept it.
"""

from __future__ import annotations

import os
import stat

from srvd.daemon.control.socket_path import is_ours
from srvd.daemon.fd_table import FdTable
from srvd.daemon.recovery.state_file import HEADER, LIMIT, Sealed, measure, unseal
from srvd.errors import Unsupported
from srvd.linux.rendezvous import is_name
from srvd.linux.systemd import Unit, spell_store_name
from srvd.record import Record

__all__ = ["Left", "StoreCopy", "find"]

LOCK_KIND = "family"
STATE_KIND = "state"

_NAME = "state in the store"
_HEAD = 64  # bytes in front, for the name of the rendezvous
_COPIES = (_HEAD, _HEAD + HEADER + LIMIT)
"""Offsets of the two copies. The space between them is a hole in the file, and takes no memory."""


class StoreCopy:
    """The stored copy of one family's state. Owns the memfd; without a store there is none (-1)."""

    def __init__(self, family: str, fd: int = -1) -> None:
        """`family`: name of its rendezvous. Kept in the memfd, because all users can see the names in the store."""
        self.family = family
        self._fd = fd
        self._is_void = False

    @classmethod
    def create(cls, family: str, unit: Unit) -> StoreCopy:
        """Make an empty copy, with a memfd if the service manager has a store. Raises `OSError`."""
        return cls(family, os.memfd_create("srvd-state", os.MFD_CLOEXEC) if unit.store and family else -1)

    @property
    def has_store(self) -> bool:
        return self._fd >= 0

    def to_store(self, lock: int) -> dict[str, int]:
        """Return the descriptors for the service manager's store, by name; none from a `clear` to the next `write`."""
        if not self.has_store or self._is_void:
            return {}
        label = str(os.fstat(self._fd).st_ino)
        return {spell_store_name(LOCK_KIND, label): lock, spell_store_name(STATE_KIND, label): self._fd}

    def write(self, sealed: bytes) -> None:
        """Replace the older copy. Raises `OSError`."""
        begin = min(_COPIES, key=self._stamp)
        _write(self._fd, self.family.encode(), 0)
        # The header last: until it is there, the other copy is the newest one.
        _write(self._fd, sealed[HEADER:], begin + HEADER)
        _write(self._fd, sealed[:HEADER], begin)
        self._is_void = False

    def read(self) -> Sealed | None:
        """Return the newest complete copy."""
        found = [copy for begin in _COPIES if (copy := self._copy(begin)) is not None]
        return max(found, default=None)

    def clear(self) -> None:
        """Empty the memfd: the state in it is not true any more."""
        self._is_void = True
        if self.has_store:
            os.ftruncate(self._fd, 0)

    def save(self, table: FdTable) -> None:
        """Give the memfd to the next program."""
        if self.has_store:
            table.give(_NAME, self._fd)

    @classmethod
    def restore(cls, family: str, unit: Unit, table: FdTable) -> StoreCopy:
        """Restore what `save` gave, or make an empty copy. Raises `OSError`, `Unsupported`."""
        fd = table.find(_NAME)
        return cls(family, fd) if fd >= 0 else cls.create(family, unit)

    def close(self) -> None:
        if self.has_store:
            os.close(self._fd)
        self._fd = -1

    def _stamp(self, begin: int) -> int:
        return measure(os.pread(self._fd, HEADER, begin))[0]

    def _copy(self, begin: int) -> Sealed | None:
        header = os.pread(self._fd, HEADER, begin)
        try:
            return unseal(header + os.pread(self._fd, min(measure(header)[1], LIMIT), begin + HEADER))
        except Unsupported:
            return None


class Left(Record):
    """What a daemon that died left in the store: the copy of its state, and a descriptor of the family's lock."""

    store_copy: StoreCopy
    lock: int


def find(unit: Unit) -> Left | None:
    """Find a state and its lock among the descriptors from the service manager; close all other locks and states."""
    locks, states = unit.stored(LOCK_KIND), unit.stored(STATE_KIND)
    found: Left | None = None
    for name, fd in states.items():
        beside = name.replace(STATE_KIND, LOCK_KIND, 1)
        if found is None and _is_file(fd) and _is_file(locks.get(beside, -1)):
            family = os.pread(fd, _HEAD, 0).rstrip(b"\0").decode("ascii", "replace")
            if is_name(family):
                found = Left(StoreCopy(family, fd), locks.pop(beside))
                continue
        os.close(fd)
    for fd in locks.values():
        os.close(fd)
    return found


def _is_file(fd: int) -> bool:
    """Whether the descriptor is a regular file of root or of the daemon's user."""
    if fd < 0:
        return False
    entry = os.fstat(fd)
    return stat.S_ISREG(entry.st_mode) and is_ours(entry)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written
