"""The user at the other end of a control connection, and the role of that user.

Decides by uid and groups, which the kernel vouches for; the pid is only written to the log.
"""

from __future__ import annotations

import grp
import pwd
import socket
import struct
from collections.abc import Mapping, Sequence

from srvd.core.model import Actor
from srvd.errors import ConfigInvalid, PermissionRefused
from srvd.linux import credentials
from srvd.linux.processes import procfs
from srvd.linux.processes.identity import OVERFLOW, is_mapped
from srvd.record import Record
from srvd.wire.commands import ADMIN, ROLES

__all__ = ["Peer", "Roles", "identify"]

_SO_PEERGROUPS = 59  # asm-generic/socket.h; Python has no name for it
_GID = struct.Struct("I")
_MOST_OPTION = 1024  # bytes that Python's getsockopt() takes: 256 groups


class Peer(Record):
    uid: int
    gid: int
    pid: int  # 0 when it is of another pid namespace
    name: str
    role: str  # "" for none

    def actor(self) -> Actor:
        return Actor(self.uid, self.pid, self.name)


class Roles(Record):
    """Which uid and which gid has which role."""

    users: dict[int, str]
    groups: dict[int, str]
    own_uid: int
    unknown: bool = False  # the overflow uid is no user's here, and stands for users the kernel cannot name

    @classmethod
    def resolve(cls, roles: Mapping[str, Sequence[str]], own_uid: int) -> Roles:
        """Reads the setting `roles`: names or numbers of users, or of groups after a %. Root and `own_uid` are admin.

        Asks the user database, which may be a network service: at start and reload only. Raises `ConfigInvalid` for
        a name that does not exist, and for the overflow uid or gid where it is no user's or group's.
        """
        users: dict[int, str] = {}
        groups: dict[int, str] = {}
        for role in ROLES:  # in rising order: a user named twice gets the higher role
            for member in roles.get(role, ()):
                if member.startswith("%"):
                    groups[_gid(member[1:])] = role
                else:
                    users[_uid(member)] = role
        unknown = not is_mapped("uid", OVERFLOW)
        if unknown and OVERFLOW in users:
            raise _of_strangers("user")
        if OVERFLOW in groups and not is_mapped("gid", OVERFLOW):
            raise _of_strangers("group")
        users[0] = users[own_uid] = ADMIN
        return cls(users, groups, own_uid, unknown)

    def of(self, uid: int, gids: Sequence[int]) -> str:
        """The highest role that the uid or one of the groups has, "" for none."""
        if uid == OVERFLOW and self.unknown:
            return ""
        found = [self.users.get(uid, ""), *(self.groups.get(gid, "") for gid in gids)]
        return max(found, key=lambda role: ROLES.index(role) if role else -1)

    def refusal(self, uid: int) -> PermissionRefused:
        """Returns why a user without a role is refused."""
        if uid == OVERFLOW and self.unknown:
            return PermissionRefused(
                f"uid {uid} stands for every user that the daemon's user namespace does not know, and has no role"
            )
        return PermissionRefused(f"uid {uid} has no role here; the setting `roles` of [control] gives roles")

    @property
    def shared(self) -> bool:
        """Whether users besides root and the daemon's own may connect."""
        return bool(self.groups) or bool(self.users.keys() - {0, self.own_uid})


def identify(sock: socket.socket, roles: Roles) -> Peer:
    """Returns the peer of a connection. Raises `OSError` when the kernel does not name it."""
    pid, uid, gid = credentials.of_peer(sock)
    role = roles.of(uid, [gid, *(_groups(sock) if roles.groups else ())])
    return Peer(uid, gid, pid, _user_name(uid) + _behind(uid, pid) if role else f"uid {uid}", role)


def _behind(uid: int, pid: int) -> str:
    """The login name behind root, as " (for alice)": sudo makes every admin root. For the history; decides nothing."""
    login = procfs.login(pid) if uid == 0 and pid else ""
    try:
        person = pwd.getpwuid(int(login)) if login.isdecimal() else pwd.getpwnam(login)
    except KeyError:  # also for ""
        return ""
    return f" (for {person.pw_name})" if person.pw_uid else ""


def _groups(sock: socket.socket) -> list[int]:
    """Returns the peer's supplementary groups when it connected; none if it has more than 256: too few is safe."""
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST_OPTION)
    except OSError:
        return []
    return [gid for (gid,) in _GID.iter_unpack(packed)]


def _user_name(uid: int) -> str:
    """The name for the log. Asked only for a peer with a role: no other may make the daemon wait for a directory."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _of_strangers(kind: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"give a role to {kind} {OVERFLOW}: this user namespace has no such {kind}, and the kernel names every {kind} "
        "so that it does not know; nothing was changed",
        hint=f"give it to another {kind}, or map {OVERFLOW} (see /proc/self/{kind[0]}id_map)",
    )


def _uid(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ConfigInvalid(f"give a role to user {name!r}: there is no such user; nothing was changed") from None


def _gid(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigInvalid(f"give a role to group {name!r}: there is no such group; nothing was changed") from None
