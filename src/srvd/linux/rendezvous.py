"""Where orphans meet the next daemon: an abstract Unix socket (unix(7)) that exists only while somebody waits there.

Says nothing about who is adopted. The name cannot be guessed, but all may read it while somebody waits (proc(5),
net/unix): so each side asks the kernel who the other is.
"""

from __future__ import annotations

import os
import re
import socket
import struct

from srvd.errors import SystemRefused
from srvd.linux import fds
from srvd.record import Record

__all__ = ["Caller", "Rendezvous", "call", "is_name", "new_name"]

_TYPE = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

_NAME = re.compile(r"srvd-[0-9a-f]{32}")

_BACKLOG = 128
"""Orphans that wait to be heard; all others come again."""


class Caller(Record):
    """Who connected, as the kernel says: the process that called connect(2), as it was then."""

    sock: socket.socket  # the caller's
    pid: int
    uid: int


def new_name() -> str:
    """The name of a rendezvous that nobody can guess."""
    return f"srvd-{os.urandom(16).hex()}"


def is_name(text: str) -> bool:
    """Whether it is one of `new_name`."""
    return _NAME.fullmatch(text) is not None


def call(name: str, uid: int) -> socket.socket | None:
    """A connection to whoever waits there, if that is root or this user; None if nobody does, or not for us.

    Never waits. A link from then on: it blocks where `fds.send` is asked to.
    """
    sock = socket.socket(socket.AF_UNIX, _TYPE)
    try:
        if sock.connect_ex("\0" + name) == 0 and _peer(sock)[1] in (0, uid):
            sock.setblocking(True)
            return sock
    except OSError:  # it ended between the two
        pass
    sock.close()
    return None


class Rendezvous:
    """The waiting side."""

    def __init__(self, name: str, *, eager: bool = False) -> None:
        """`eager`: who calls may pass descriptors at once. Raises `SystemRefused`: somebody else has taken the name."""
        self._listener = socket.socket(socket.AF_UNIX, _TYPE)
        try:
            fds.refuse_rights(self._listener, on=not eager)
            self._listener.bind("\0" + name)
            self._listener.listen(_BACKLOG)
        except OSError as exc:
            self._listener.close()
            raise SystemRefused(
                f"wait at @{name} for the workers of the former daemon: {exc.strerror}; nothing was started",
                hint="if another process has the name, `ss -xlp` shows which; the workers leave after orphan_timeout",
            ) from exc

    def fileno(self) -> int:
        return self._listener.fileno()

    def accept(self) -> Caller | None:
        """The next one; None: nobody has come since. Raises `OSError` (EMFILE and the like)."""
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock.setblocking(True)
        pid, uid, _ = _peer(sock)
        return Caller(sock, pid, uid)

    def close(self) -> None:
        self._listener.close()


def _peer(sock: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid; for a client those of the process that called listen(2). SO_PEERCRED, unix(7)."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid, gid
