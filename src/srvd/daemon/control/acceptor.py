"""The acceptor of the control socket: accepts at a bounded rate, and refuses cleanly when no descriptor is left.

Peers of all roles wait in one queue, since the kernel names a peer only when it is accepted. So connections are
accepted many times as fast as peers get a slot (`limits.py`): a flood of peers without a role delays an admin by the
length of the queue at most. `server.py` decides which peers stay.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Any, Protocol

from srvd.daemon.control.admission import TokenBucket
from srvd.daemon.control.clock import NEVER
from srvd.daemon.control.limits import Limits
from srvd.daemon.control.peers import Peer, Roles, identify
from srvd.daemon.control.socket_path import SocketPath
from srvd.daemon.loop import Loop
from srvd.errors import Busy
from srvd.linux import fds
from srvd.wire.codec import encode
from srvd.wire.messages import bye

__all__ = ["ControlAcceptor", "send_and_close"]

ACCEPT_TURN = 16
ACCEPT_PAUSE = 1.0
"""Seconds without accepting when the kernel has no memory or descriptors for it."""

_SHORT = (errno.EMFILE, errno.ENFILE)


class AcceptorOwner(Protocol):
    """What the acceptor reports to: the server."""

    def arrived(self, sock: socket.socket, peer: Peer) -> None: ...
    def short(self, problem: OSError) -> None: ...
    def wake_by(self, due: float) -> None: ...


class ControlAcceptor:
    """Accepts, at a bounded rate, and keeps one descriptor in reserve to refuse with when there are no more."""

    __slots__ = ("_bucket", "_loop", "_owner", "_reserve", "paused_until", "roles", "socket_path")

    def __init__(self, loop: Loop, socket_path: SocketPath, roles: Roles, limits: Limits, owner: AcceptorOwner) -> None:
        self.socket_path = socket_path
        self.roles = roles
        self.paused_until = NEVER  # while accepting is paused
        self._loop = loop
        self._owner = owner
        self._bucket = TokenBucket(limits.look_rate, limits.look_burst, loop.time())
        self._reserve = _reserve()
        self._attach()

    def accept_again(self, now: float) -> None:
        if now < self.paused_until:
            return
        if self._reserve < 0:
            self._reserve = _reserve()
        self.paused_until = NEVER
        self._loop.add_reader(self.socket_path.listener.fileno(), self._readable)

    def renew(self) -> bool:
        """Makes the socket's path anew if it is gone; False: it is there. Raises `SystemRefused`.

        The loop's reader is changed only when the listener is. In a storm of signals this is called at each turn, and
        a reader that is registered anew each time would never be called.
        """
        former = self.socket_path.listener
        fd = former.fileno()
        try:
            return self.socket_path.renew(shared=self.roles.shared)
        finally:
            if self.socket_path.listener is not former:
                self._attach(former=fd)

    def _attach(self, former: int = -1) -> None:
        """Registers the present listener with the loop in the place of `former`, which is closed (-1: none)."""
        fds.refuse_rights(self.socket_path.listener)  # accepted connections inherit it
        if self.paused_until == NEVER:
            self._loop.remove_reader(former)
            self._loop.add_reader(self.socket_path.listener.fileno(), self._readable)

    def close(self) -> None:
        if self.paused_until == NEVER:
            self._loop.remove_reader(self.socket_path.listener.fileno())
        self.socket_path.close()
        if self._reserve >= 0:
            os.close(self._reserve)

    def _readable(self) -> None:
        for _ in range(ACCEPT_TURN):
            pause = self._bucket.pass_one(self._loop.time())
            if pause:
                self._pause(pause)
                return
            try:
                sock, _ = self.socket_path.listener.accept()
            except BlockingIOError:
                return
            except OSError as problem:
                self._cope(problem)
                return
            sock.setblocking(False)
            try:
                peer = identify(sock, self.roles)
            except OSError:
                fds.close_link(sock)
                continue
            self._owner.arrived(sock, peer)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self.socket_path.listener.fileno())
        self.paused_until = self._loop.time() + seconds
        self._owner.wake_by(self.paused_until)

    def _cope(self, problem: OSError) -> None:
        """Handles a lack of descriptors or memory: refuses the peer that waits, or pauses.

        Else the listener would stay readable, and the loop would never sleep.
        """
        self._owner.short(problem)
        if problem.errno not in _SHORT or self._reserve < 0:
            self._pause(ACCEPT_PAUSE)
            return
        os.close(self._reserve)
        try:
            sock, _ = self.socket_path.listener.accept()
            send_and_close(sock, bye(Busy.code, "the daemon has no file descriptors left"))
        except OSError:
            self._pause(ACCEPT_PAUSE)
        self._reserve = _reserve()


def _reserve() -> int:
    """Opens a descriptor that can be closed to accept one more connection; -1 when none is left even for this."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def send_and_close(sock: socket.socket, message: dict[str, Any]) -> None:
    """Sends a message on a new connection and closes it. It always fits; a peer that is gone does not need it."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.send(encode(message), socket.MSG_NOSIGNAL)
    fds.close_link(sock)
