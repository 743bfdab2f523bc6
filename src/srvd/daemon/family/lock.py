"""By what a family stays together when its daemon dies: a lock that each member holds, and the name of a rendezvous.

Adopts nobody. The lock is on a file beside the control socket. Daemon and zygotes share it (LOCK_SH), each by an open
file of its own that workers inherit: whoever lets go lets go for itself alone. Whoever could have it alone (LOCK_EX) is
the only one. The name of the rendezvous is the file's content, for the next daemon to read; those who only read it
cannot change it.
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
    """A family lock as it is handed over: all but the lock."""

    path: str
    rendezvous: str


class FamilyLock:
    """Of one instance, from one start that finds nobody to the next. To be opened by who owns the control socket.

    `is_held`: we have the lock. Else a former family lives: `rendezvous` is where its members come, "" if that is
    unknown; with them we share it (`join`).
    """

    def __init__(self, path: str, lock: int, name: str, *, is_held: bool, is_stored: bool = False) -> None:
        """`is_stored`: lock and name are with the service manager, too."""
        self.path = path
        self.is_stored = is_stored
        self.rendezvous = name
        self.lock = lock
        self.is_held = is_held

    @classmethod
    def open(cls, path: str, *, is_stored: bool = False) -> FamilyLock:
        """Raises `SystemRefused`: there is no such folder, or what is there is not ours."""
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
        """Of a daemon that no other one can follow: it has no place for a file."""
        return cls("", os.memfd_create("srvd-family", os.MFD_CLOEXEC), "", is_held=True)

    def try_again(self) -> bool:
        """Take the lock, and give the family that begins here a name, if nobody of a former one lives any more."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.flock(self.lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # nobody else starts here: the control socket is ours
        self.is_held = True
        self.rendezvous = rendezvous.new_name()
        try:
            os.ftruncate(self.lock, 0)
            os.pwrite(self.lock, f"{self.rendezvous}\n".encode(), 0)
        except OSError:  # a full disk: orphans could not be found there, so nobody shall wait for that
            self.rendezvous = self.rendezvous if self.is_stored else ""
        return True

    @property
    def is_in_place(self) -> bool:
        """Is the lock the one that others find by its path?"""
        try:
            entry = os.lstat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self.lock)
        return (entry.st_dev, entry.st_ino) == (mine.st_dev, mine.st_ino)

    def renew(self) -> None:
        """Begin anew in its place: those who hold it are known to be of no family."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        fresh = FamilyLock.open(self.path, is_stored=self.is_stored)
        os.close(self.lock)
        self.lock, self.rendezvous, self.is_held = fresh.lock, fresh.rendezvous, fresh.is_held

    def join(self) -> None:
        """Members live who come to us: the family is ours from here on."""
        if self.is_held:
            return
        try:
            fcntl.flock(self.lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # of a former version, whose members had it alone
            self.renew()
        self.is_held = True

    def share(self) -> int:
        """A descriptor for a member, of an open file of its own. Raises `OSError`."""
        lock = os.open(f"/proc/self/fd/{self.lock}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock

    def save(self, table: FdTable) -> FamilyLockState:
        """What another program needs to hold it."""
        if self.path:
            table.give("family lock", self.lock)
        return FamilyLockState(self.path, self.rendezvous)

    @classmethod
    def restore(cls, saved: FamilyLockState, table: FdTable, path: str) -> FamilyLock:
        """Hold what `save` told of; `path` is for a former program without; "": no file. Raises `Unsupported`."""
        if not saved.path:
            return cls.open(path) if path else cls.unnamed()
        return cls(saved.path, table.take("family lock"), saved.rendezvous, is_held=True)

    def close(self, *, remove: bool) -> None:
        """Let go of it; `remove` at an end that leaves nobody behind."""
        if remove and self.is_held:
            with contextlib.suppress(FileNotFoundError):  # somebody has tidied up
                os.unlink(self.path)
        os.close(self.lock)
        self.lock = -1
