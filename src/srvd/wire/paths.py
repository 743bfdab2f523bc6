"""Where the control socket of an instance is: rules that the daemon and `srvctl` share.

Looks at no file: text in, paths out. The code that opens a path checks its owner. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from srvd.errors import BadArgs

__all__ = [
    "OFF",
    "PATH_LIMIT",
    "SUFFIX",
    "SYSTEM_RUNDIR",
    "TEMPORARY",
    "USERS_RUNDIR",
    "check_name",
    "family_path",
    "lock_path",
    "own_rundirs",
    "rundir",
    "rundirs",
    "socket_path",
    "state_path",
    "watcher_address",
]

SYSTEM_RUNDIR = "/run/srvd"
USERS_RUNDIR = "/run/user"
TEMPORARY = "/tmp"  # noqa: S108 - its owner is checked when it is opened
SUFFIX = ".sock"

OFF = "off"
"""The value of the setting `socket` for a daemon without a control socket."""

PATH_LIMIT = 107
"""Most bytes of a Unix socket's path: sun_path has 108 with the closing NUL (unix(7))."""

NAME_LIMIT = 64


def check_name(name: str) -> str:
    """Returns the name of an instance if it is valid: it becomes a file's name. Raises `BadArgs`."""
    fits = 0 < len(name) <= NAME_LIMIT and name.isascii() and name[0].isalnum()
    if not fits or not all(char.isalnum() or char in "-_." for char in name):
        raise BadArgs(
            f"name an instance {name[:NAME_LIMIT]!r}: that is no name",
            hint=f"letters, digits, '-', '_' and '.', at most {NAME_LIMIT}, the first a letter or digit",
        )
    return name


def rundir(uid: int, environ: Mapping[str, str]) -> str:
    """Returns the directory in which a daemon of this user puts its control socket."""
    if uid == 0:
        return SYSTEM_RUNDIR
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    # A relative one is to be ignored (XDG Base Directory Specification, "Environment variables").
    return f"{runtime.rstrip('/')}/srvd" if runtime.startswith("/") else f"{TEMPORARY}/srvd-{uid}"


def own_rundirs(uid: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns all directories in which a daemon of this user may have put its socket.

    The daemon may have had another environment than this process (a login, cron, a system service).
    """
    if uid == 0:
        return (SYSTEM_RUNDIR,)
    return tuple(dict.fromkeys((rundir(uid, environ), f"{USERS_RUNDIR}/{uid}/srvd", f"{TEMPORARY}/srvd-{uid}")))


def rundirs(uid: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the directories that `srvctl` searches, in order. A user may have a role with the system's daemon."""
    return tuple(dict.fromkeys((*own_rundirs(uid, environ), SYSTEM_RUNDIR)))


def socket_path(name: str, directory: str) -> str:
    """Returns the path of the control socket of the instance `name`. Raises `BadArgs` for an invalid name."""
    return f"{directory}/{check_name(name)}{SUFFIX}"


def lock_path(socket: str) -> str:
    """Returns the path of the file whose lock proves that a daemon owns the socket."""
    return f"{socket}.lock"


def family_path(socket: str) -> str:
    """Returns the path of the file whose lock the daemon, its zygotes and its workers share: one of them lives."""
    return f"{socket}.family"


def state_path(socket: str) -> str:
    """Returns the path of the state file, with which the next daemon adopts the processes of this one."""
    return f"{socket}.state"


def watcher_address(pid: int) -> str:
    """Returns the abstract address of the watcher that belongs to the daemon with this pid."""
    return f"\0srvd-watcher-{pid}"
