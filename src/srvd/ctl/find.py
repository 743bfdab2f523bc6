"""Which control socket is meant: the one that was named, or the only one there is.

The rules of where sockets are live in wire/places.py; here they meet the file system.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

from srvd.errors import BadArgs, NoDaemon
from srvd.record import Record
from srvd.wire.places import SUFFIX, rundirs, socket_path

__all__ = ["Named", "find"]


class Named(Record):
    """What the command line says; "" for nothing."""

    socket: str = ""
    name: str = ""


def find(named: Named, environ: Mapping[str, str], uid: int) -> str:
    """The path of the control socket: -s, -n, SRVD_SOCKET, SRVD_NAME, in this order, else the only daemon.

    Raises `BadArgs` when that is no choice, or too many; `NoDaemon` when there is none.
    """
    if named.socket and named.name:
        raise BadArgs("find the daemon: both a socket and a name were given", hint="choose one of -s and -n")
    path, name = named
    if not path and not name:
        path, name = environ.get("SRVD_SOCKET", ""), environ.get("SRVD_NAME", "")
    if path:
        return path
    directories = rundirs(uid, environ)
    if name:
        return _named(name, directories, uid)
    found = [path for directory in directories for path in _sockets(directory, uid)]
    if len(found) > 1:
        found = [path for path in found if _listens(path)] or found
    if not found:
        hint = "start one with `srvd start`, or name its socket with -s"
        barred = [directory for directory in directories if _is_barred(directory)]
        if barred:
            hint = f"your user may not look into {barred[0]}: a daemon there lets in whom its `roles` name"
        raise NoDaemon(f"find the daemon: there is no control socket in {' or '.join(directories)}", hint=hint)
    if len(found) > 1:
        raise BadArgs(
            f"find the daemon: there are several: {', '.join(found)}", hint="choose one with -n NAME or -s SOCKET"
        )
    return found[0]


def _named(name: str, directories: tuple[str, ...], uid: int) -> str:
    """The socket of this name where it is, or else where it would be. Raises `NoDaemon`."""
    paths = {directory: socket_path(name, directory) for directory in directories}
    for directory, path in paths.items():
        if os.path.exists(path) and _is_trusted(directory, uid):
            return path
    for directory in directories:
        if _is_barred(directory):
            # Asked there, the kernel says that the user may not; elsewhere it would only say that there is none.
            return paths[directory]
        if os.path.exists(directory) and not _is_trusted(directory, uid):
            raise NoDaemon(
                f"find the daemon {name}: {directory} belongs to somebody else, who could have put anything there",
                hint=f"if you trust them: -s {paths[directory]}",
            )
    return paths[directories[0]]


def _is_trusted(directory: str, uid: int) -> bool:
    """Whether it is root's or the user's own, and not only a link to such a one. Raises `OSError`."""
    return all(entry.st_uid in (0, uid) for entry in (os.lstat(directory), os.stat(directory)))


def _is_barred(directory: str) -> bool:
    """Whether the directory is there, and this user cannot see what is in it."""
    return os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK)


def _sockets(directory: str, uid: int) -> list[str]:
    """The sockets in a directory; none in one of somebody else, who could have put anything there."""
    try:
        names = os.listdir(directory) if _is_trusted(directory, uid) else []
    except OSError:
        return []
    return [f"{directory}/{name}" for name in sorted(names) if name.endswith(SUFFIX)]


def _listens(path: str) -> bool:
    """Whether someone listens, or might: only a refusal is a clear no."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)
