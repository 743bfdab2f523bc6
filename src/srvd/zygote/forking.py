"""The nursery: forks a worker for each order on the link, and tells of each one's end.

What the child does is `child.py`. No timer, no signal handler: an epoll over the link and the children's pidfds.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from srvd.config.settings import PoolSettings
from srvd.linux import fds, process
from srvd.linux.process import Ended
from srvd.linux.scoreboard import Board
from srvd.wire import family
from srvd.worker.hooks import Hooks
from srvd.zygote import child

if TYPE_CHECKING:
    from srvd.worker.front import Front

__all__ = ["Nursery", "Stock"]


class Stock(NamedTuple):
    """What each worker is made of, made once."""

    wanted: family.Load
    app: object | None
    board: Board
    listeners: list[socket.socket]
    pool: PoolSettings
    hooks: Hooks | None = None  # None: each worker loads them
    fronts: Sequence[Front | None] = ()  # one for each listener
    stacks: int = -1  # the file for the zygote's own stacks


class Newborn(NamedTuple):
    serial: int
    pid: int


class Nursery:
    """Owns the link and the children's pidfds; `run` returns when the daemon lets go."""

    def __init__(self, link: socket.socket, stock: Stock) -> None:
        self._link = link
        self._stock = stock
        self._children: dict[int, Newborn] = {}
        self._epoll = select.epoll()
        self._epoll.register(link, select.EPOLLIN)

    def run(self) -> None:
        """Fork and bury until the link ends or says `Quit`. Workers stay behind: the daemon takes them over."""
        try:
            while self._turn():
                pass
        except (BrokenPipeError, ConnectionResetError):  # the link ended while something was said
            return

    def _turn(self) -> bool:
        return all(self._bury(fd) if fd in self._children else self._hear() for fd, _ in self._epoll.poll())

    def _hear(self) -> bool:
        """One message of the daemon; False: there will be no more."""
        received = fds.receive(self._link, family.LIMIT, 3)
        if received is None:
            return True
        datagram, passed = received
        if not datagram:
            return False
        order = family.decode(datagram, (family.Fork, family.Quit))
        if not isinstance(order, family.Fork):
            fds.close_all(passed)
            return False
        if len(passed) == 3:
            self._fork(order, passed)
        else:
            fds.close_all(passed)
            self._say(family.ForkFailed(order.serial, "descriptors were lost on the way"))
        return True

    def _fork(self, order: family.Fork, passed: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as exc:  # EAGAIN, ENOMEM: transient, and the daemon's to wait out
            self._say(family.ForkFailed(order.serial, f"fork: {exc.strerror}"))
            fds.close_all(passed)
            return
        if pid == 0:
            self._forget()
            child.become(self._stock, order, *passed)
        fds.close_all(passed)
        try:
            # At once: a child that nobody has reaped yet cannot be mistaken for another process.
            pidfd = process.open_pidfd(pid)
        except OSError as exc:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._say(family.ForkFailed(order.serial, f"open its pidfd: {exc.strerror}"))
            return
        self._children[pidfd] = Newborn(order.serial, pid)
        self._epoll.register(pidfd, select.EPOLLIN)
        self._say(family.Forked(order.serial, pid), pidfd)

    def _forget(self) -> None:
        """In the child: close what is the zygote's. Its descriptors would keep links and siblings from ending."""
        self._epoll.close()
        self._link.close()
        fds.close_all(self._children)

    def _bury(self, pidfd: int) -> bool:
        newborn = self._children.pop(pidfd)
        self._epoll.unregister(pidfd)
        try:
            ended = process.reap(pidfd) or Ended()
        except ChildProcessError:  # an application that waits for any child got here first
            ended = Ended()
        os.close(pidfd)
        self._say(family.Reaped(newborn.serial, ended.exit_code, ended.signal))
        return True

    def _say(self, message: family.Message, *passed: int) -> None:
        fds.send(self._link, family.encode(message), passed, wait=True)
