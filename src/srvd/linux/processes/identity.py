"""Finds users and groups by name, and changes a process that runs as root to them for good.

Does not identify the peer of a socket (the control socket does).
"""

from __future__ import annotations

import grp
import os
import pwd

from srvd.errors import LoadFailed
from srvd.record import Record

__all__ = ["OVERFLOW", "Identity", "assume", "closed_folder", "environment", "gid_of", "is_mapped", "resolve", "uid_of"]

OVERFLOW = 65_534
"""The uid and gid that the kernel reports for users without a number in this user namespace (user_namespaces(7)). Where
the number is mapped, it also is the user `nobody`."""


class Identity(Record):
    """The user and group as which a process shall run; a gid alone changes the group only."""

    uid: int | None
    gid: int
    user: str  # for initgroups; "" when the uid has no entry


def resolve(user: str, group: str) -> Identity | None:
    """Returns the identity for these names or numbers; None if the process has it already.

    Raises `LoadFailed` when a name is unknown, or the process may not become that user or group.
    """
    if not user and not group:
        return None
    uid, gid, name = _user(user) if user else (None, -1, "")
    if group:
        gid = _group(group)
    if gid == -1:
        raise LoadFailed(f"run as user {user}: it has no entry, so its group is unknown", hint="set `group` too")
    wanted = Identity(uid, gid, name)
    if wanted.uid in (None, os.geteuid()) and wanted.gid == os.getegid():
        return None
    if os.geteuid() != 0:
        raise LoadFailed(
            f"run as {user or os.geteuid()}:{group or wanted.gid}: only root can change user and group",
            hint="start srvd as root, or leave out `user` and `group`",
        )
    return wanted


def uid_of(user: str) -> int:
    """Returns the number of a user, -1 for "". Raises `LookupError`."""
    return -1 if not user else int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid


def gid_of(group: str) -> int:
    """Returns the number of a group, -1 for "". Raises `LookupError`."""
    return -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid


def is_mapped(kind: str, number: int) -> bool:
    """Tells whether a uid or gid (`kind`) is mapped in this user namespace. False where /proc does not tell."""
    try:
        with open(f"/proc/self/{kind}_map", encoding="ascii") as file:
            rows = [[int(cell) for cell in line.split()] for line in file]
    except (OSError, ValueError):
        return False
    return any(first <= number < first + count for first, _, count in rows)


def environment(user: str) -> dict[str, str]:
    """Returns the environment variables of a user (a name or a number); none for "". The home of a user without an
    entry is "/".
    """
    if not user:
        return {}
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):  # `resolve` refuses an unknown name
        return {"HOME": "/", "USER": user, "LOGNAME": user}
    return {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def closed_folder(path: str) -> str:
    """Returns the first folder on the way to `path` that this process may not enter; "" if there is none."""
    at = ""
    for part in os.path.abspath(path).split("/")[1:-1]:
        at = f"{at}/{part}"
        if os.path.isdir(at) and not os.access(at, os.X_OK, effective_ids=True):
            return at
    return ""


def assume(identity: Identity) -> None:
    """Changes this process to the user and group, for good. Raises `OSError` if the kernel refuses or ignores a change.

    The groups come first: only root can set them, and setresuid(2) gives up root, saved ids included.
    """
    if identity.uid is not None and identity.user:
        os.initgroups(identity.user, identity.gid)
    else:
        os.setgroups([identity.gid])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    if identity.uid is not None:
        os.setresuid(identity.uid, identity.uid, identity.uid)
    uid = os.geteuid() if identity.uid is None else identity.uid
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (identity.gid,) * 3:
        raise PermissionError(f"run as {uid}:{identity.gid}: the kernel kept {os.getresuid()}:{os.getresgid()}")


def _user(name: str) -> tuple[int, int, str]:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        if name.isdecimal():  # in containers users often are numbers without an entry
            return int(name), -1, ""
        raise LoadFailed(f"run as user {name!r}: there is no such user", hint="name one of /etc/passwd") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise LoadFailed(f"run as group {name!r}: there is no such group", hint="name one of /etc/group") from None
