"""Finds the control socket: the one that was named, or the only one there is.

Looks into the folders that wire/paths.py names.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence

from srvd.errors import BadArgs, NoDaemon
from srvd.record import Record
from srvd.wire import paths
from srvd.wire.paths import OFF, SUFFIX, rundirs, socket_path

__all__ = ["Named", "find", "listener_pid", "start_hint"]

_UCRED = struct.Struct("3i")

_TITLE = b"srvd: daemon "
"""The beginning of a daemon's command line, as `ps` shows it."""


class Named(Record):
    """The socket and the name that the command line gave; "" for none."""

    socket: str = ""
    name: str = ""


class Place(Record):
    """A directory that may have control sockets, and the uid that must own it unless root does."""

    directory: str
    owner: int


def find(named: Named, environ: Mapping[str, str], uid: int) -> str:
    """Returns the path of the control socket: by -s, -n, SRVD_SOCKET or SRVD_NAME, in this order, else the only one.

    A user's daemon may be in several directories. Root, without a daemon of its own, finds those of all users. Raises
    `BadArgs` when both -s and -n are given, or several daemons are found; `NoDaemon` when none is.
    """
    if named.socket and named.name:
        raise BadArgs("find the daemon: both a socket and a name were given", hint="choose one of -s and -n")
    path, name = named
    if not path and not name:
        path, name = environ.get("SRVD_SOCKET", ""), environ.get("SRVD_NAME", "")
    if path == OFF:
        raise NoDaemon('find the daemon: it has no control socket (SRVD_SOCKET is "off"); signals control it')
    if path:
        return path
    own = [Place(directory, uid) for directory in rundirs(uid, environ)]
    others = _of_users() if uid == 0 else []
    if name:
        return _named(name, own, others)
    found = _living(own) or _living(others)
    if not found:
        hint = start_hint()
        barred = [place.directory for place in own if _is_barred(place.directory)]
        if barred:
            hint = (
                f"start your own with `srvd start`; a daemon in {barred[0]}, which your user may not look into, "
                "lets in the users that its `roles` name"
            )
        where = [place.directory for place in own] + ["the places of other users"] * bool(others)
        raise NoDaemon(f"find the daemon: there is no control socket in {_or(where)}", hint=hint)
    if len(found) > 1:
        raise BadArgs(
            f"find the daemon: there are several: {', '.join(found)}", hint="choose one with -n NAME or -s SOCKET"
        )
    return found[0]


def start_hint() -> str:
    """Says what to do if there is no socket, with the sockets of running daemons, and pids of those without one."""
    hint = "start one with `srvd start`, or name another with -n NAME or -s SOCKET"
    uid = os.getuid()
    known = [Place(directory, uid) for directory in rundirs(uid, os.environ)] + (_of_users() if uid == 0 else [])
    listeners = {path: pid for place in known for path in _sockets(place) if (pid := _listener(path))}
    if listeners:
        hint += f", such as {', '.join(list(listeners)[:4])}"
    living = [f"pid {pid} ({title})" for pid, title in _daemons() if pid not in listeners.values()]
    if not living:
        return hint
    return (
        f"{hint}. Running daemons: {', '.join(living[:4])}. If the socket of one was removed, `kill -HUP PID` makes it "
        "anew, and reloads"
    )


def _daemons() -> list[tuple[int, str]]:
    """Returns pid and title of the daemons of all users that /proc shows."""
    found = []
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                title = file.read(200).rstrip(b"\0")
        except OSError:
            continue
        if title.startswith(_TITLE):
            found.append((pid, title.decode("utf-8", "backslashreplace")))
    return found


def _of_users() -> list[Place]:
    """Returns the directories of all users, for root."""
    return [
        Place(pattern.format(uid), int(uid))
        for folder, prefix, pattern in (
            (paths.USERS_RUNDIR, "", f"{paths.USERS_RUNDIR}/{{}}/srvd"),
            (paths.TEMPORARY, "srvd-", f"{paths.TEMPORARY}/srvd-{{}}"),
        )
        for name in _names(folder)
        if name.startswith(prefix) and (uid := name.removeprefix(prefix)).isdecimal()
    ]


def _named(name: str, own: Sequence[Place], others: Sequence[Place]) -> str:
    """Returns the socket of this name; if there is none, the path where it would be. Raises `NoDaemon`, `BadArgs`."""
    for known in (own, others):
        found = [
            path for place in known if os.path.exists(path := socket_path(name, place.directory)) and _is_trusted(place)
        ]
        found = _listening(found)
        if len(found) > 1 and known is others:
            raise BadArgs(
                f"find the daemon {name}: there are several: {', '.join(found)}", hint="choose one with -s SOCKET"
            )
        if found:
            return found[0]
    for place in own:
        path = socket_path(name, place.directory)
        if _is_barred(place.directory):
            # Connecting there says that the user may not; elsewhere it would say that there is no daemon.
            return path
        if os.path.exists(place.directory) and not _is_trusted(place):
            raise NoDaemon(
                f"find the daemon {name}: {place.directory} belongs to another user, and is not searched for sockets",
                hint=f"if you trust that user: -s {path}",
            )
    return socket_path(name, own[0].directory)


def _living(known: Sequence[Place]) -> list[str]:
    """Returns the sockets in these directories; without those of dead daemons, unless all are."""
    return _listening([path for place in known for path in _sockets(place)])


def _listening(found: list[str]) -> list[str]:
    return ([path for path in found if _listens(path)] or found) if len(found) > 1 else found


def _is_trusted(place: Place) -> bool:
    """Whether root or the user owns the directory and, if it is a link, the link. Raises `OSError`."""
    return all(entry.st_uid in (0, place.owner) for entry in (os.lstat(place.directory), os.stat(place.directory)))


def _is_barred(directory: str) -> bool:
    """Whether the directory exists and this user may not list it."""
    return os.path.isdir(directory) and not os.access(directory, os.R_OK | os.X_OK)


def _sockets(place: Place) -> list[str]:
    """Returns the sockets in a directory; none if another user owns it, and could have made them."""
    try:
        names = os.listdir(place.directory) if _is_trusted(place) else []
    except OSError:
        return []
    return [f"{place.directory}/{name}" for name in sorted(names) if name.endswith(SUFFIX)]


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _or(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _listener(path: str) -> int:
    """Returns the pid of the process that listens there; 0 without one, or when it cannot be connected to at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        if probe.connect_ex(path):
            return 0
        return listener_pid(probe)


def listener_pid(connected: socket.socket) -> int:
    """Returns the pid of the process that listens at the other end of a Unix socket (unix(7), SO_PEERCRED).

    0: the process is in another pid namespace.
    """
    pid: int = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return pid


def _listens(path: str) -> bool:
    """Whether a process listens there. True also in doubt: only a refused connection is a clear no."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        return probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT)
