"""By what a family stays together when its daemon dies: a lock that each member holds, and the name of a rendezvous.

Adopts nobody. The lock is on a file beside the control socket, and is held as long as any process has a descriptor of
it that was passed on from the daemon; the name of the rendezvous is the file's content, for the next daemon to read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat

from srvd.daemon.control_socket import is_ours
from srvd.errors import SystemRefused
from srvd.linux import rendezvous

__all__ = ["Bond"]

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NAME = re.compile(r"srvd-[0-9a-f]{32}")


class Bond:
    """Of one instance, from one start that finds nobody to the next. To be opened by who owns the control socket.

    `is_fresh`: nobody of a former family lives. Else `rendezvous` is where its members come, "" if that is unknown,
    and the descriptor `lock` is not locked: one that is comes with the first of them (`take`).
    """

    def __init__(self, path: str, lock: int, name: str, *, is_fresh: bool) -> None:
        self.rendezvous = name
        self.lock = lock
        self.is_fresh = is_fresh
        self._path = path

    @classmethod
    def open(cls, path: str) -> Bond:
        """Raises `SystemRefused`: there is no such folder, or what is there is not ours."""
        try:
            lock = os.open(path, _FLAGS, 0o600)
        except OSError as exc:
            raise SystemRefused(f"open {path}: {exc.strerror}; nothing was started") from exc
        try:
            entry = os.fstat(lock)
            if not stat.S_ISREG(entry.st_mode) or not is_ours(entry):
                raise SystemRefused(f"open {path}: it is no file of root or of the daemon's user; nothing was started")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                name = os.pread(lock, 64, 0).decode("ascii", "replace").strip()
                return cls(path, lock, name if _NAME.fullmatch(name) else "", is_fresh=False)
            return cls._begin(path, lock)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def _begin(cls, path: str, lock: int) -> Bond:
        name = rendezvous.new_name()
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{name}\n".encode(), 0)
        except OSError:  # a full disk: whoever is orphaned is found by nobody, then, and leaves when its time is over
            name = ""
        return cls(path, lock, name, is_fresh=True)

    def renew(self) -> Bond:
        """A new one in its place: those who hold this one are not of the family, or cannot be known."""
        os.unlink(self._path)
        os.close(self.lock)
        return Bond.open(self._path)

    def take(self, lock: int) -> bool:
        """A member has brought the lock itself; False, and closed: it is none, or is not needed."""
        mine, theirs = os.fstat(self.lock), os.fstat(lock)
        if self.is_fresh or (mine.st_dev, mine.st_ino) != (theirs.st_dev, theirs.st_ino):
            os.close(lock)
            return False
        os.close(self.lock)
        self.lock = lock
        self.is_fresh = True
        return True

    def close(self, *, remove: bool) -> None:
        """Let go of it; `remove` at an end that leaves nobody behind."""
        if remove:
            with contextlib.suppress(FileNotFoundError):  # somebody has tidied up
                os.unlink(self._path)
        os.close(self.lock)
