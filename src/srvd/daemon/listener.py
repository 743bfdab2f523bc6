"""One listening socket: planned by a configuration, opened, resting, serving again, closed.

`listeners.py` holds all sockets and knows the configurations that use them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from srvd.errors import ConfigInvalid, SystemRefused
from srvd.linux import fds, socket_files, sockets
from srvd.linux.processes import identity
from srvd.linux.socket_files import Access, PathId
from srvd.linux.sockets import Address
from srvd.linux.systemd import spell_store_name
from srvd.record import Record

__all__ = [
    "BY_RELOAD",
    "CLOSE",
    "RESTING",
    "STORE_KIND",
    "Key",
    "Open",
    "Plan",
    "check_families",
    "is_every",
    "is_lost",
    "key_of",
    "number_of",
    "open_planned",
    "problem_of",
    "rest",
    "serve",
    "store_name",
    "trouble_of",
]

STORE_KIND = "listener"

BY_RELOAD = "`srvctl reload` opens it anew"

CLOSE = 0.5
"""Limit in seconds of waiting for the close of a listener: microseconds, unless a worker uses the socket just then."""

RESTING = ".resting"
"""Suffix of the path of a Unix socket that no configuration in force names."""


class Open(Record):
    """An open socket.

    owned: its file, for Unix sockets that this daemon bound.
    lent: belongs to the environment (service manager).
    spent: was connected by a process, and can never listen again.
    """

    socket: socket.socket
    owned: PathId | None
    resting: bool = False
    lent: bool = False
    spent: bool = False

    def close(self) -> None:
        """End listening in all processes and close the socket in a thread: workers have the same open file, and may
        have connected it elsewhere, so that the close lingers (`linux/fds.py`). Waits for the close of a socket that is
        not connected, because the address is free afterwards.
        """
        if self.owned is not None:
            socket_files.unlink(self.owned)
        if not self.lent:
            sockets.end(self.socket)
        patience = 0.0 if sockets.is_connected(self.socket) else CLOSE
        fds.discard([self.socket.detach()], patience)


class Key(Record):
    """Identifies a socket. With port 0, which asks for any port, `whose` (listener and position) belongs to the key."""

    address: Address
    whose: str = ""
    turn: int = 0  # how often the socket was replaced because clients could not reach it


class Plan(Record):
    """The settings of one configuration for one address."""

    name: str
    key: Key
    backlog: int
    mode: int
    reuse_port: bool
    uid: int = -1
    gid: int = -1
    both: bool = False  # IPv6 and IPv4

    @property
    def access(self) -> Access:
        return Access(self.mode, self.uid, self.gid)


def problem_of(opened: Open) -> str:
    """Return why clients cannot reach the socket; "" if they can, or if it rests."""
    if opened.resting:
        return ""
    if opened.owned is not None and not socket_files.is_there(opened.owned):
        return "its path is gone"
    if sockets.is_shut(opened.socket):
        return "a process that has it has shut it down"
    return "it was closed for a stop" if sockets.is_hidden(opened.socket) else ""


def is_lost(opened: Open) -> bool:
    """Whether the socket must be replaced. False for an abstract one: while a process has it, its name stays taken."""
    if opened.lent or not problem_of(opened):
        return False
    if opened.socket.family == socket.AF_UNIX:
        return opened.owned is not None
    return opened.spent or sockets.is_hidden(opened.socket) or sockets.is_connected(opened.socket)


def trouble_of(opened: Open) -> dict[str, str]:
    """Return the socket's problem and the remedy; empty if there is no problem."""
    problem = problem_of(opened)
    return {"problem": problem, "remedy": _remedy(opened)} if problem else {}


def _remedy(opened: Open) -> str:
    """Return what an operator can do about a listener that has a problem."""
    if opened.lent:
        return "it is the service manager's: stop srvd, and restart the socket unit"
    if opened.socket.family == socket.AF_UNIX and opened.owned is None:
        return "its abstract name is taken until all processes that have it are gone: stop srvd and start it again"
    return BY_RELOAD


def store_name(key: Key) -> str:
    return spell_store_name(STORE_KIND, f"{key.whose}/{key.address}")


def key_of(address: Address, whose: str) -> Key:
    any_port = address.kind in ("inet", "inet6") and address.port == 0
    return Key(address, whose if any_port else "")


def number_of(listener: str, kind: str, name: str) -> int:
    """Return the id of the owner or group `name`. Raises `ConfigInvalid`: it does not exist."""
    try:
        return identity.uid_of(name) if kind == "owner" else identity.gid_of(name)
    except LookupError:
        raise ConfigInvalid(f"listener {listener}: there is no {kind} {name!r} on this machine") from None


def is_every(address: Address) -> bool:
    return address.kind == "inet6" and address.host == "::"


def check_families(plan: Plan, among: Mapping[Key, Open]) -> None:
    """Raise `SystemRefused` if one of the open sockets, which cannot be changed, conflicts with the plan."""
    address = plan.key.address
    for key, opened in among.items():
        other = key.address
        if other.port != address.port or not address.port or other == address:
            continue
        if plan.both and other.kind == "inet":
            told, hint = f"this daemon has its port for IPv4, as {other}", f"name {other} as well, or stop"
        elif address.kind == "inet" and sockets.families(opened.socket) == "IPv4 as well":
            told, hint = f"{other} of this daemon serves IPv4 as well", "leave it out, or stop"
        else:
            continue
        raise SystemRefused(f"listen on {address}: {told}; nothing was changed", hint=f"{hint} srvd and start it")


def open_planned(plan: Plan) -> Open:
    address = plan.key.address
    sock = sockets.open_listener(address, plan.backlog, plan.mode, reuse_port=plan.reuse_port, both=plan.both)
    lent = address.kind == "fd"
    opened = Open(sock, None if lent else socket_files.path_id(sock), lent=lent)
    try:
        if opened.owned is not None:
            socket_files.grant(opened.owned, plan.access)
    except OSError as exc:
        opened.close()
        raise SystemRefused(
            f"give {address} its owner, group and mode: {exc.strerror}; nothing was changed",
            hint="only root may give it to another user, and others only to a group of their own",
        ) from exc
    return opened


def rest(key: Key, opened: Open) -> Open:
    """Refuse new connections, and stay bound. Sockets with a port chosen by the kernel stay open, because they would
    get another port afterwards; so do abstract sockets and those of the environment.
    """
    if opened.resting or key.whose or opened.lent:
        return opened
    if opened.owned is not None:
        moved = socket_files.move(opened.owned, key.address.host + RESTING)
        return opened if moved is None else opened._replace(owned=moved, resting=True)
    if key.address.kind == "unix":
        return opened
    if not sockets.is_shut(opened.socket):  # not shut down by another process before
        opened.socket.shutdown(socket.SHUT_RD)  # TCP: from LISTEN to CLOSE, still bound; listen(2) undoes it
    # Two sockets that allow reuse may be bound to one address while none of them listens: forbid it for this one.
    opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return opened._replace(resting=True)


def serve(plan: Plan, opened: Open) -> Open:
    """Accept connections by the plan, again if the socket rested."""
    owned = opened.owned
    if opened.resting and owned is not None:
        owned = socket_files.move(owned, plan.key.address.host)
    elif opened.resting:
        opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    spent = not sockets.listens(opened.socket, plan.backlog)  # `problem_of` reports this
    if owned is not None:
        socket_files.grant(owned, plan.access)
    return opened._replace(owned=owned, resting=False, spent=spent)
