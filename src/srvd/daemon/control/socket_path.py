"""The control socket's place in the file system: its directory, the lock that proves ownership, and the bound socket.

Accepts nothing: `acceptor.py` does. A socket that exists is removed only by the process that holds the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat

from srvd.daemon.fd_table import FdTable
from srvd.errors import SystemRefused
from srvd.linux import fds
from srvd.linux.socket_files import Access, grant, path_id
from srvd.record import Record
from srvd.wire.paths import PATH_LIMIT, lock_path, rundir

__all__ = ["SocketPath", "SocketPathState", "answers", "is_ours"]

BACKLOG = 128

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class SocketPathState(Record):
    """A control socket as it is saved, without its two descriptors."""

    path: str
    inode: tuple[int, int] | None


class SocketPath:
    """A path that belongs to this daemon until `close()`: the listening socket and the lock beside it."""

    __slots__ = ("_inode", "_lock", "listener", "path")

    def __init__(self, held: SocketPathState, listener: socket.socket, lock: int) -> None:
        self.path = held.path
        self.listener = listener
        self._lock = lock
        self._inode = held.inode

    @classmethod
    def open(cls, path: str, *, shared: bool) -> SocketPath:
        """Locks the path and listens on it; `shared`: other users may connect, with the roles they have.

        Raises `SystemRefused`: a live daemon holds the lock (named by pid), something that is no socket is there, the
        path is too long, or the directory cannot be made or is not safe.
        """
        if len(os.fsencode(path)) > PATH_LIMIT:
            raise SystemRefused(
                f"open the control socket {path}: a socket's path has at most {PATH_LIMIT} bytes",
                hint="choose a shorter one with --socket",
            )
        try:
            _prepare_directory(os.path.dirname(path) or ".", shared=shared)
            lock = _lock(path)
            try:
                _clear(path)
                listener = _bind(path, shared=shared)
                return cls(SocketPathState(path, _inode_at(path)), listener, lock)
            except BaseException:
                _unlock(path, lock)
                raise
        except OSError as exc:
            raise SystemRefused(
                f"open the control socket {path}: {exc.strerror}",
                hint="--socket (`socket` of [control]) names another place that may be written to; "
                '"off" goes without one, and without srvctl',
            ) from exc

    @classmethod
    def of_nothing(cls) -> SocketPath:
        """Makes a listener on which no connection ever arrives, for a daemon without a control socket."""
        silent, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # While `other` is open `silent` is never readable. The descriptor takes the place of the lock's.
        return cls(SocketPathState("", None), silent, other.detach())

    @property
    def description(self) -> str:
        """The sentence about the control socket in the log of a start."""
        if self.path:
            return f"control socket {self.path}"
        return (
            'no control socket (socket = "off"): srvctl does not reach this daemon; SIGHUP reloads, SIGUSR2 upgrades, '
            "SIGTERM stops. Should the daemon die, its workers finish and leave: no other one can adopt them"
        )

    def save(self, table: FdTable) -> SocketPathState:
        """Returns what the next program needs. The lock belongs to the open file and is never released (flock(2))."""
        table.give("control listener", self.listener.fileno())
        table.give("control lock", self._lock)
        return SocketPathState(self.path, self._inode)

    @classmethod
    def restore(cls, held: SocketPathState, table: FdTable) -> SocketPath:
        """Takes what `save` returned. Raises `Unsupported`, `OSError`."""
        lock = table.take("control lock")
        listener = socket.socket(fileno=table.take("control listener"))
        listener.setblocking(False)
        return cls(held, listener, lock)

    def renew(self, *, shared: bool) -> bool:
        """Binds and locks anew what was removed, by a cleaner of /tmp perhaps; False: all is in its place.

        Raises `SystemRefused`: another daemon, or something that is no socket, has the path now.
        """
        if not self.path:
            return False
        mine = os.fstat(self._lock)
        locked = _inode_at(lock_path(self.path)) == (mine.st_dev, mine.st_ino)
        bound = self._inode is not None and self._inode == _inode_at(self.path)
        if locked and bound:
            return False
        try:
            _prepare_directory(os.path.dirname(self.path) or ".", shared=shared)
            if not locked:
                lock = _lock(self.path)
                os.close(self._lock)
                self._lock = lock
            if not bound:
                _clear(self.path)
                listener = _bind(self.path, shared=shared)
                fds.close_link(self.listener)
                self.listener, self._inode = listener, _inode_at(self.path)
        except OSError as exc:
            raise SystemRefused(f"make the control socket {self.path} anew: {exc.strerror}") from exc
        return True

    def share(self, *, shared: bool) -> None:
        """Lets other users connect, or not. Raises `OSError`."""
        if self.path and self._inode == _inode_at(self.path):
            _admit(self.listener, shared=shared)
            if shared:
                _let_pass(os.path.dirname(self.path))

    def close(self) -> None:
        """Stops listening, removes the socket if it still is this one, and releases the lock, in this order.

        A second call does nothing.
        """
        if self._lock < 0:
            return
        fds.close_link(self.listener)
        if not self.path:
            os.close(self._lock)
        else:
            if self._inode == _inode_at(self.path):
                os.unlink(self.path)
            _unlock(self.path, self._lock)
        self._lock = -1


def _prepare_directory(directory: str, *, shared: bool) -> None:
    """Makes the directory if it is missing, and refuses one in which other users could exchange the socket."""
    try:
        os.mkdir(directory, 0o700)
        if shared:
            os.chmod(directory, 0o755)  # noqa: S103 - by chmod: a umask must not lock out users with a role
    except FileExistsError:
        entry = os.lstat(directory)
        # In a directory like /tmp another user may have made this name first, as a link that leads anywhere.
        if stat.S_ISLNK(entry.st_mode) and is_ours(entry):
            entry = os.stat(directory)
        open_to_all = bool(entry.st_mode & stat.S_IWOTH) and not entry.st_mode & stat.S_ISVTX
        if not stat.S_ISDIR(entry.st_mode) or not is_ours(entry) or open_to_all:
            raise SystemRefused(
                f"open the control socket in {directory}: it must be a directory of root or of the daemon's user, "
                "and not writable by everyone",
                hint=f"see `ls -ld {directory}`; correct its owner and mode, or choose another --socket",
            ) from None
        if shared:
            _let_pass(directory)


def _let_pass(directory: str) -> None:
    """Lets other users into the folder, which an earlier start, without roles, has made for its user alone.

    Changes only srvd's own folder: one that the administrator made stays as it is. Raises `OSError`.
    """
    mode = stat.S_IMODE(os.stat(directory).st_mode)
    if directory == rundir(os.geteuid(), os.environ) and mode & 0o055 != 0o055:
        os.chmod(directory, mode | 0o055)  # noqa: S103 - the sockets' modes and the roles decide


def is_ours(entry: os.stat_result) -> bool:
    """Whether a file is root's or the daemon's user's."""
    return entry.st_uid in (0, os.geteuid())


def _lock(path: str) -> int:
    """Locks the lock file, and writes the daemon's pid to it."""
    while True:
        lock = os.open(lock_path(path), _LOCK_FLAGS, 0o600)
        try:
            entry = os.fstat(lock)
            if not stat.S_ISREG(entry.st_mode) or not is_ours(entry):
                raise SystemRefused(f"lock {lock_path(path)}: it is no file of root or of the daemon's user")
            _flock(path, lock)
            # The former owner may have removed the file between open and flock: then this lock is worthless.
            if _inode_at(lock_path(path)) == (entry.st_dev, entry.st_ino):
                with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, without a pid
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _flock(path: str, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        raise SystemRefused(
            f"open the control socket {path}: a daemon already holds it (pid {owner or 'unknown'})",
            hint=f"stop that one (`srvctl -s {path} stop`), or give this one another --name (--socket, if that is set)",
            detail={"pid": int(owner) if owner.isdecimal() else 0, "socket": path},
        ) from None


def _unlock(path: str, lock: int) -> None:
    """Removes the lock file, then closes it: a daemon that opened it meanwhile sees it is gone, and tries again."""
    entry = os.fstat(lock)
    if _inode_at(lock_path(path)) == (entry.st_dev, entry.st_ino):
        os.unlink(lock_path(path))
    os.close(lock)


def _clear(path: str) -> None:
    """Removes the socket that a dead daemon left. The caller holds the lock."""
    try:
        entry = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(entry.st_mode):
        raise SystemRefused(f"open the control socket {path}: something that is no socket is there; it is left alone")
    if answers(path):
        raise SystemRefused(f"open the control socket {path}: another program listens there; it is left alone")
    os.unlink(path)


def answers(path: str) -> bool:
    """Whether a process listens there: a program that is not srvd does not know of the lock."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        outcome = probe.connect_ex(path)
    # EAGAIN: its backlog is full; EPROTOTYPE: it is a socket of another type.
    return outcome in (0, errno.EAGAIN, errno.EPROTOTYPE)


def _bind(path: str, *, shared: bool) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        # bind() makes the file with the mode of the socket's own inode: it is open to others at no moment.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        _admit(listener, shared=shared)
        fds.refuse_rights(listener)  # before the first client can connect, which would not inherit it
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _admit(listener: socket.socket, *, shared: bool) -> None:
    """Sets the mode by a descriptor: the path may be another file by now."""
    owned = path_id(listener)
    if owned is not None:
        grant(owned, Access(_mode(shared=shared)))


def _mode(*, shared: bool) -> int:
    """The mode of the socket. With 0666 any user may connect; the role, by SO_PEERCRED, decides what it may ask."""
    return 0o666 if shared else 0o600


def _inode_at(path: str) -> tuple[int, int] | None:
    try:
        entry = os.lstat(path)
    except FileNotFoundError:
        return None
    return entry.st_dev, entry.st_ino
