"""The socket at which orphaned processes call the next daemon: an abstract Unix socket (unix(7)) that exists only while
a daemon listens on it.

Does not decide which callers are adopted. The name cannot be guessed, but every user can read it while a daemon listens
(proc(5), net/unix), so each side asks the kernel for the pid and uid of the other.
"""

from __future__ import annotations

import os
import re
import socket

from srvd.errors import SystemRefused
from srvd.linux import credentials, fds
from srvd.record import Record

__all__ = ["Caller", "Rendezvous", "call", "is_name", "new_name"]

_TYPE = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK

_NAME = re.compile(r"srvd-[0-9a-f]{32}")

_BACKLOG = 128
"""Orphans in the queue of listen(2); all others call again later."""


class Caller(Record):
    """A connected process, with the credentials that the kernel recorded at its connect(2)."""

    sock: socket.socket  # the connection to it
    pid: int
    uid: int


def new_name() -> str:
    """Returns a new name for a rendezvous, which cannot be guessed."""
    return f"srvd-{os.urandom(16).hex()}"


def is_name(text: str) -> bool:
    """Tells whether a text has the form of `new_name`."""
    return _NAME.fullmatch(text) is not None


def call(name: str, uid: int) -> socket.socket | None:
    """Connects to the daemon that listens at this name. Returns None if no process of root or of this user listens
    there.

    Never waits. The connection is a link like any other: in blocking mode, for `fds.send` with `wait`.
    """
    sock = socket.socket(socket.AF_UNIX, _TYPE)
    try:
        if sock.connect_ex("\0" + name) == 0 and credentials.of_peer(sock).uid in (0, uid):
            sock.setblocking(True)
            return sock
    except OSError:  # the daemon ended between the two calls
        pass
    sock.close()
    return None


class Rendezvous:
    """The listening side."""

    def __init__(self, name: str, *, eager: bool = False) -> None:
        """`eager`: callers may pass descriptors at once. Raises `SystemRefused` if another process has the name."""
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
        """Returns the next caller; None if none waits. Raises `OSError` (EMFILE and the like)."""
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        sock.setblocking(True)
        pid, uid, _ = credentials.of_peer(sock)
        return Caller(sock, pid, uid)

    def close(self) -> None:
        self._listener.close()
