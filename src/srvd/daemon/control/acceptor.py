"""The door of the control socket: accepts at a bounded rate, and refuses cleanly when nothing is left to accept with.

All wait in one queue, whoever they are: the kernel shows a peer only when it is accepted. So the queue is emptied many
times as fast as connections are let in (`limits.py`): a flood of peers without a role delays an admin by the length of
the queue at most. Which of them may stay is decided by `server.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from typing import Protocol

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
    """Whom the door tells."""

    def arrived(self, sock: socket.socket, peer: Peer) -> None: ...
    def short(self, problem: OSError) -> None: ...
    def wake_by(self, due: float) -> None: ...


class ControlAcceptor:
    """Accepts, at a bounded rate, and keeps one descriptor in reserve to refuse with when there are no more."""

    __slots__ = ("_gate", "_hall", "_loop", "_reserve", "claim", "resume_at", "roles")

    def __init__(self, loop: Loop, claim: SocketPath, roles: Roles, limits: Limits, hall: AcceptorOwner) -> None:
        self.claim = claim
        self.roles = roles
        self.resume_at = NEVER  # while accepting is paused
        self._loop = loop
        self._hall = hall
        self._gate = TokenBucket(limits.look_rate, limits.look_burst, loop.time())
        self._reserve = _reserve()
        self._attach()

    def resume(self, now: float) -> None:
        if now < self.resume_at:
            return
        if self._reserve < 0:
            self._reserve = _reserve()
        self.resume_at = NEVER
        self._loop.add_reader(self.claim.listener.fileno(), self._readable)

    def renew(self) -> bool:
        """Make the socket's path anew if it is gone; False: it is there. Raises `SystemRefused`.

        The reader moves only with the listener: to be taken off and put back in each turn, as in a storm of signals,
        would cost it each of its turns.
        """
        former = self.claim.listener
        fd = former.fileno()
        try:
            return self.claim.renew(shared=self.roles.shared)
        finally:
            if self.claim.listener is not former:
                self._attach(former=fd)

    def _attach(self, former: int = -1) -> None:
        """Listens where the claim does now, and no longer at `former`, which is closed."""
        fds.refuse_rights(self.claim.listener)  # so do those who connect from now on
        if self.resume_at == NEVER:
            self._loop.remove_reader(former)
            self._loop.add_reader(self.claim.listener.fileno(), self._readable)

    def close(self) -> None:
        if self.resume_at == NEVER:
            self._loop.remove_reader(self.claim.listener.fileno())
        self.claim.close()
        if self._reserve >= 0:
            os.close(self._reserve)

    def _readable(self) -> None:
        for _ in range(ACCEPT_TURN):
            pause = self._gate.pass_one(self._loop.time())
            if pause:
                self._pause(pause)
                return
            try:
                sock, _ = self.claim.listener.accept()
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
            self._hall.arrived(sock, peer)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self.claim.listener.fileno())
        self.resume_at = self._loop.time() + seconds
        self._hall.wake_by(self.resume_at)

    def _cope(self, problem: OSError) -> None:
        """No descriptor or no memory: refuse the one who waits, else the listener would be readable for ever."""
        self._hall.short(problem)
        if problem.errno not in _SHORT or self._reserve < 0:
            self._pause(ACCEPT_PAUSE)
            return
        os.close(self._reserve)
        try:
            sock, _ = self.claim.listener.accept()
            send_and_close(sock, encode(bye(Busy.code, "the daemon has no file descriptors left")))
        except OSError:
            self._pause(ACCEPT_PAUSE)
        self._reserve = _reserve()


def _reserve() -> int:
    """A descriptor to give up when there are no others; -1 when it is too late for that."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def send_and_close(sock: socket.socket, frame: bytes) -> None:
    """The first bytes of a new connection always fit; if its peer is gone, nobody misses them."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.send(frame, socket.MSG_NOSIGNAL)
    fds.close_link(sock)
