"""The files of Unix sockets: their owner, the users that may connect, and whether a path still leads to the socket.

Opens no socket (`sockets.py`).
"""

from __future__ import annotations

import os
import socket
import stat

from srvd.record import Record

__all__ = ["Access", "PathId", "grant", "is_there", "move", "path_id", "unlink"]


class PathId(Record):
    """The file that a Unix socket made at its path, by its inode, so that no other file is ever removed."""

    path: str
    device: int
    inode: int


class Access(Record):
    """The mode, owner and group of a Unix socket's file, which decide on the users that may connect; -1: unchanged."""

    mode: int
    uid: int = -1
    gid: int = -1


def grant(owned: PathId, access: Access) -> None:
    """Sets mode, owner and group of a Unix socket's file. Does nothing if the path leads to another file by now.

    Works on a descriptor, after checking that it is a socket with the inode that was bound: a user that may write to
    the folder could meanwhile put a link to any file in its place. Raises `OSError`.
    """
    try:
        fd = os.open(owned.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (owned.device, owned.inode) or not stat.S_ISSOCK(found.st_mode):
            return
        itself = f"/proc/self/fd/{fd}"
        if access.uid not in (-1, found.st_uid) or access.gid not in (-1, found.st_gid):
            os.chown(itself, access.uid, access.gid)
        if stat.S_IMODE(found.st_mode) != access.mode:
            os.chmod(itself, access.mode)
    finally:
        os.close(fd)


def path_id(listener: socket.socket) -> PathId | None:
    """Returns the file at a Unix socket's path; None for any other socket. Call it right after opening the socket."""
    path = listener.getsockname() if listener.family == socket.AF_UNIX else ""
    if not isinstance(path, str) or not path:  # abstract names are bytes
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return PathId(path, found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def is_there(owned: PathId) -> bool:
    """Tells whether the path still leads to this socket's file."""
    try:
        found = os.lstat(owned.path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (owned.device, owned.inode)


def unlink(owned: PathId) -> bool:
    """Removes a Unix socket's path unless the file there has been replaced. Returns False if nothing was removed."""
    if not is_there(owned):
        return False
    try:
        os.unlink(owned.path)
    except OSError:  # the process may not write to the folder any more: the next start replaces the file
        return False
    return True


def move(owned: PathId, path: str) -> PathId | None:
    """Moves a Unix socket's file to another path, and replaces a file there. Returns None if the old path leads to
    another file by now, or the kernel refuses.
    """
    if not is_there(owned):
        return None
    try:
        os.rename(owned.path, path)
    except OSError:
        return None
    return owned._replace(path=path)
