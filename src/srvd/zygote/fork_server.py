"""The nursery: forks a worker for each order on the link, and tells of each one's end.

What the child does is `child.py`. An epoll over the link, the children's pidfds and what `child_signals.py` hears, and
no timer while there is a daemon. What a zygote does without one is `orphan_clock.py`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from select import EPOLLIN, epoll

from srvd.linux import fds, process, stacks
from srvd.linux.process import Ended
from srvd.log import Log
from srvd.record import Record
from srvd.wire import links
from srvd.worker import forked
from srvd.worker.observe import access_log
from srvd.worker.observe.access_buffer import AccessBuffer
from srvd.worker.reconnect import call_home, introduce
from srvd.zygote import child, learning
from srvd.zygote.child_signals import Stops
from srvd.zygote.orphan_clock import Orphanhood
from srvd.zygote.template import WorkerTemplate

__all__ = ["ForkServer"]

_STDERR = 2


_ENDS = 1024
"""Ends of workers that are remembered for the next daemon; max_workers may be more, but they seldom all die."""


class Child(Record):
    serial: int
    pid: int
    lines: AccessBuffer | None  # of its access log, that are not written yet


class ForkServer:
    """Owns the link and the children's pidfds; `run` returns when the daemon lets go."""

    def __init__(self, link: socket.socket, stock: WorkerTemplate) -> None:
        self._link = link
        self._stock = stock
        self._children: dict[int, Child] = {}
        self._orphanhood: Orphanhood | None = None
        self._parted = False  # a worker was told to leave with all others, and has left
        # The latest, always: what was told to a daemon that died, it may have taken with it.
        self._ended: deque[links.Reaped] = deque(maxlen=_ENDS)
        self._stops = Stops()
        self._stopped: set[int] = set()  # pids of children that stand still
        self._epoll = epoll()
        self._epoll.register(link, EPOLLIN)
        self._epoll.register(self._stops.fd, EPOLLIN)

    def run(self) -> None:
        """Fork and bury until told to leave. Workers stay behind: the daemon takes them over."""
        while self._turn():
            pass

    def _turn(self) -> bool:
        orphanhood = self._orphanhood
        if orphanhood is None:
            events = self._epoll.poll()
        else:
            heard, children = self._link.fileno() >= 0, bool(self._children)
            events = self._epoll.poll(orphanhood.wait(time.monotonic(), heard=heard, children=children))
            if not self._wait_for_daemon(orphanhood, time.monotonic()):
                return False
        return all(self._attend(fd) for fd, _ in events) and not (self._parted and not self._children)

    def _attend(self, fd: int) -> bool:
        """False: the daemon let go."""
        if fd == self._stops.fd:
            self._look_after()
            return True
        return self._bury(fd) if fd in self._children else self._hear()

    def _look_after(self) -> None:
        """Tell who was stopped and who goes on."""
        for halt in self._stops.read():
            newborn = next((one for one in self._children.values() if one.pid == halt.pid), None)
            if newborn is None:  # what the application started while it was loaded
                continue
            if halt.stopped:
                self._stopped.add(halt.pid)
            else:
                self._stopped.discard(halt.pid)
            if self._orphanhood is None:  # else the next daemon is told who still stands when it has come
                self._say(links.Stopped(newborn.serial) if halt.stopped else links.Continued(newborn.serial))

    def _hear(self) -> bool:
        """One message of the daemon; False: there will be no more."""
        try:
            received = fds.receive(self._link, links.LIMIT, child.PASSED)
        except OSError:
            received = b"", []
        if received is None:
            return True
        datagram, passed = received
        if not datagram:
            return self._lose_daemon()
        order = links.decode(datagram, (links.Fork, links.Learn, links.Leave, links.Introduce, links.Adopted))
        if isinstance(order, links.Learn):
            fds.close_all(passed)
            self._learn(order.modules)
            return True
        if isinstance(order, links.Adopted):
            self._orphanhood, self._parted = None, False
            for newborn in self._children.values():
                if newborn.pid in self._stopped:
                    self._say(links.Stopped(newborn.serial))
            return True
        if isinstance(order, links.Introduce):
            self._introduce()
            return True
        if not isinstance(order, links.Fork):
            fds.close_all(passed)
            return False
        if len(passed) == child.PASSED:
            self._fork(order, passed)
        else:
            fds.close_all(passed)
            self._say(links.ForkFailed(order.serial, "descriptors were lost on the way"))
        return True

    def _lose_daemon(self) -> bool:
        """The link has ended. False: nobody will come, and the workers see to themselves."""
        home, pool = self._stock.home, self._stock.pool
        if home is None or pool.orphan_timeout == 0:
            return False
        self._epoll.unregister(self._link)
        self._link.close()
        if self._orphanhood is None:
            self._orphanhood = Orphanhood(time.monotonic(), pool.orphan_timeout, pool.drain_timeout)
        return True

    def _wait_for_daemon(self, orphanhood: Orphanhood, now: float) -> bool:
        """Call if it is time to, and end those who did not leave in time. False: it is over."""
        if orphanhood.is_over(now, children=bool(self._children)):
            for pidfd, newborn in self._children.items():
                process.send_group_signal(pidfd, newborn.pid, signal.SIGKILL)
                process.send_signal(pidfd, signal.SIGKILL)
            return False
        if self._link.fileno() >= 0 or not orphanhood.may_call(now):
            return True
        assert self._stock.home is not None
        link = call_home(self._stock.home)
        if link is not None:
            self._link = link
            self._epoll.register(link, EPOLLIN)
        return True

    def _learn(self, modules: Sequence[str]) -> None:
        stock = self._stock
        fds.kill_at_end(self._link)  # as at the load, this may never come back
        with forked.guarded(lambda: [self._link.fileno()]):
            lesson = learning.learn(modules, preload=stock.wanted.preload, seconds=stock.pool.boot_timeout / 2)
        gc.collect()
        gc.freeze()
        fds.kill_at_end(self._link, on=False)
        dispositions = stock.dispositions.joined(lesson.dispositions)
        self._stock = stock._replace(warms=stock.warms or not lesson.whole, dispositions=dispositions)
        self._say(links.Learned([links.clip(note) for note in lesson.notes]))

    def _introduce(self) -> None:
        """Tell a daemon that took the call who we are. If it cannot be told it ends the link, and the next call may."""
        home, wanted, orphanhood = self._stock.home, self._stock.wanted, self._orphanhood
        if home is None or orphanhood is None:
            return
        children = [[newborn.serial, newborn.pid] for newborn in self._children.values()]
        ended = [[-1 if value is None else value for value in reaped] for reaped in self._ended]
        late = orphanhood.is_late(time.monotonic())
        introduce(self._link, home, links.CallHome(wanted.pool, wanted.generation, 0, late, children, ended))

    def _fork(self, order: links.Fork, passed: list[int]) -> None:
        # Before the fork: what the application has registered to run in each child comes first there, and may hang.
        stacks.tell_to(passed[child.STACKS])
        try:
            lines = AccessBuffer() if self._stock.pool.access_log else None
            pid = os.fork()
        except OSError as exc:  # EAGAIN, ENOMEM: transient, and the daemon's to wait out
            self._say(links.ForkFailed(order.serial, f"fork: {exc.strerror}"))
            pid = -1
        if pid == 0:
            self._forget()
            child.become(self._stock, order, lines, passed)
        stacks.tell_to(self._stock.stacks)
        fds.close_all(passed)
        if pid < 0:
            return
        try:
            # At once: a child that nobody has reaped yet cannot be mistaken for another process.
            pidfd = process.open_pidfd(pid)
        except OSError as exc:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._say(links.ForkFailed(order.serial, f"open its pidfd: {exc.strerror}"))
            return
        self._children[pidfd] = Child(order.serial, pid, lines)
        self._epoll.register(pidfd, EPOLLIN)
        self._say(links.Forked(order.serial, pid))

    def _forget(self) -> None:
        """In the child: close what is the zygote's. Its descriptors would keep links and siblings from ending."""
        self._stops.close()
        self._epoll.close()
        self._link.close()
        fds.close_all(self._children)
        for sibling in self._children.values():
            if sibling.lines is not None:
                sibling.lines.close()
        if self._stock.home is not None:
            os.close(self._stock.home.stderr)

    def _bury(self, pidfd: int) -> bool:
        newborn = self._children.pop(pidfd)
        self._stopped.discard(newborn.pid)
        self._epoll.unregister(pidfd)
        try:
            ended = process.reap(pidfd) or Ended()
        except ChildProcessError:  # an application that waits for any child got here first
            ended = Ended()
        os.close(pidfd)
        reaped = links.Reaped(newborn.serial, ended.exit_code, ended.signal)
        self._ended.append(reaped)
        self._parted |= self._orphanhood is not None and ended.exit_code == links.ALONE
        self._say(reaped)
        if newborn.lines is not None:
            self._rescue(newborn.lines)
        return True

    def _rescue(self, lines: AccessBuffer) -> None:
        """Write what a worker that was killed has not written."""
        path = self._stock.pool.access_log
        lost, problem = access_log.rescue(path, lines)
        lines.close()
        if lost:
            Log(_STDERR).error(f"write the access log {path}: {problem}; a worker that died has left {lost} lines")

    def _say(self, message: links.Message) -> None:
        """What nobody hears any more is lost, but for the ends of workers: the next call tells of them."""
        with contextlib.suppress(OSError):  # its end will be read from the link, or has been
            fds.send(self._link, links.encode(message), wait=True)
