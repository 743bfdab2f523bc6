"""The files of Unix sockets: whose they are, who may connect, and whether a path still leads to the socket.

Opens no socket (`sockets.py`).
"""

from __future__ import annotations

import os
import socket
import stat

from srvd.record import Record

__all__ = ["Access", "PathId", "grant", "is_there", "move", "path_id", "unlink"]


class PathId(Record):
    """The file that a Unix socket made at its path, so that only this one is ever removed."""

    path: str
    device: int
    inode: int


class Access(Record):
    """Who may connect to a Unix socket: its file's mode, owner and group; -1: as it is."""

    mode: int
    uid: int = -1
    gid: int = -1


def grant(owned: PathId, access: Access) -> None:
    """Give the file of a Unix socket its mode, owner and group; nothing if its path is not its own any more.

    By a descriptor, and only what is a socket and has the inode that was bound: whoever may write to the folder could
    put a link to anything in its place meanwhile. Raises `OSError`.
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
    """The file behind a Unix socket's path, to be asked right after it was opened; None for any other socket."""
    path = listener.getsockname() if listener.family == socket.AF_UNIX else ""
    if not isinstance(path, str) or not path:  # abstract names are bytes
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return PathId(path, found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def is_there(owned: PathId) -> bool:
    """Whether the path still is this socket's file."""
    try:
        found = os.lstat(owned.path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (owned.device, owned.inode)


def unlink(owned: PathId) -> bool:
    """Remove a Unix socket's path unless somebody replaced what was there; False if nothing was removed."""
    if not is_there(owned):
        return False
    try:
        os.unlink(owned.path)
    except OSError:  # its folder is ours no longer: nothing that the next start could not replace
        return False
    return True


def move(owned: PathId, path: str) -> PathId | None:
    """Give a Unix socket another path, over what is there; None if its own is not its any more, or it cannot be."""
    if not is_there(owned):
        return None
    try:
        os.rename(owned.path, path)
    except OSError:
        return None
    return owned._replace(path=path)
