"""What connects a family with the next daemon when its own has died: a lock that all members hold, and a rendezvous.

Adopts no process. The lock is on a file beside the control socket. Daemon and zygotes share the lock (LOCK_SH), each
through an open file of its own that workers inherit, so each member releases only its own share. A daemon that gets
the lock alone (LOCK_EX) knows that no member of a former family lives. The file contains the name of the rendezvous,
for the next daemon; members have the file open read-only and cannot change the name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

from srvd.daemon.control.socket_path import is_ours
from srvd.daemon.fd_table import FdTable
from srvd.errors import SystemRefused
from srvd.linux import rendezvous
from srvd.record import Record

__all__ = ["FamilyLock", "FamilyLockState"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class FamilyLockState(Record):
    """A family lock as it is handed over, without the descriptor."""

    path: str
    rendezvous: str


class FamilyLock:
    """The lock of one instance. A family begins at a start that finds no former member. The opener must own the control
    socket.

    `is_held`: this daemon has the lock. If not, a former family lives: `rendezvous` is where its members call, "" if
    that is unknown; `join` shares the lock with them.
    """

    def __init__(self, path: str, lock: int, name: str, *, is_held: bool, is_stored: bool = False) -> None:
        """`is_stored`: the service manager keeps lock and name, too."""
        self.path = path
        self.is_stored = is_stored
        self.rendezvous = name
        self.lock = lock
        self.is_held = is_held

    @classmethod
    def open(cls, path: str, *, is_stored: bool = False) -> FamilyLock:
        """Open or create the file, and try to take the lock.

        Raises `SystemRefused`: there is no such folder, or the file belongs to another user.
        """
        try:
            lock = os.open(path, _FLAGS, 0o600)
        except OSError as exc:
            raise SystemRefused(f"open {path}: {exc.strerror}; nothing was started") from exc
        entry = os.fstat(lock)
        if not stat.S_ISREG(entry.st_mode) or not is_ours(entry):
            os.close(lock)
            raise SystemRefused(f"open {path}: it is no file of root or of the daemon's user; nothing was started")
        found = cls(path, lock, "", is_held=False, is_stored=is_stored)
        if not found.try_again():
            name = os.pread(lock, 64, 0).decode("ascii", "replace").strip()
            found.rendezvous = name if rendezvous.is_name(name) else ""
        return found

    @classmethod
    def unnamed(cls) -> FamilyLock:
        """Make a lock without a file, for a daemon without a control socket: no other daemon can find its family."""
        return cls("", os.memfd_create("srvd-family", os.MFD_CLOEXEC), "", is_held=True)

    def try_again(self) -> bool:
        """Take the lock and name a new family, if no member of a former one lives. Returns whether it was taken."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self.lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # no rival starts: this process has the control socket
        self.is_held = True
        self.rendezvous = rendezvous.new_name()
        try:
            os.ftruncate(self.lock, 0)
            os.pwrite(self.lock, f"{self.rendezvous}\n".encode(), 0)
        except OSError:  # a full disk: a next daemon could not read the name, so orphans shall not wait for one
            self.rendezvous = self.rendezvous if self.is_stored else ""
        return True

    @property
    def is_in_place(self) -> bool:
        """Whether the path still leads to the file of this lock."""
        try:
            entry = os.lstat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self.lock)
        return (entry.st_dev, entry.st_ino) == (mine.st_dev, mine.st_ino)

    def renew(self) -> None:
        """Replace the file and take the new lock. The processes that hold the former lock are of no family."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        fresh = FamilyLock.open(self.path, is_stored=self.is_stored)
        os.close(self.lock)
        self.lock, self.rendezvous, self.is_held = fresh.lock, fresh.rendezvous, fresh.is_held

    def join(self) -> None:
        """Share the lock with members that call here: the family belongs to this daemon from here on."""
        if self.is_held:
            return
        try:
            fcntl.flock(self.lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # members of a former version hold the lock exclusively
            self.renew()
        self.is_held = True

    def share(self) -> int:
        """Return a locked descriptor for a member, of an open file of its own. Raises `OSError`."""
        lock = os.open(f"/proc/self/fd/{self.lock}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock

    def save(self, table: FdTable) -> FamilyLockState:
        """Return what another program needs to hold the lock; the descriptor goes to `table`."""
        if self.path:
            table.give("family lock", self.lock)
        return FamilyLockState(self.path, self.rendezvous)

    @classmethod
    def restore(cls, saved: FamilyLockState, table: FdTable, path: str) -> FamilyLock:
        """Restore the lock from `save`. `path`: the file to open if the former program had no lock; "": no file.

        Raises `Unsupported`.
        """
        if not saved.path:
            return cls.open(path) if path else cls.unnamed()
        return cls(saved.path, table.take("family lock"), saved.rendezvous, is_held=True)

    def close(self, *, remove: bool) -> None:
        """Close the lock. `remove`: delete the file, too, because no process of the family is left."""
        if remove and self.is_held:
            with contextlib.suppress(FileNotFoundError):  # removed from outside
                os.unlink(self.path)
        os.close(self.lock)
        self.lock = -1
