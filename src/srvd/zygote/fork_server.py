"""Forks a worker for each order on the link, and reports the end of each worker.

Runs no code of a worker; `child.py` does. Waits by an epoll over the link, the pidfds of the children and the pipe of
`child_signals.py`, without a timer while there is a daemon. `orphan_clock.py` has the times of a zygote without one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from select import EPOLLIN, epoll

from srvd.linux import fds
from srvd.linux.processes import process, stacks
from srvd.record import Record
from srvd.wire import links
from srvd.worker.observe.access_buffer import AccessBuffer
from srvd.worker.supervision.reconnect import call_home, introduce
from srvd.zygote import learning
from srvd.zygote.child import PASSED, STACKS, become
from srvd.zygote.child_signals import ChildSignals
from srvd.zygote.departures import Departures, rescue
from srvd.zygote.orphan_clock import OrphanClock
from srvd.zygote.template import WorkerTemplate

__all__ = ["ForkServer"]

_ENDS = 1024
"""Ends of workers that are kept for the next daemon. max_workers may be more, but seldom do all of them die."""


_ORDERS = (links.Fork, links.Learn, links.Leave, links.Introduce, links.Adopted)


class Child(Record):
    """One worker that this zygote has forked."""

    serial: int
    pid: int
    buffer: AccessBuffer | None  # of its access log, not written yet


class ForkServer:
    """Owns the link and the pidfds of the children. `run` returns when the zygote is to exit."""

    def __init__(self, link: socket.socket, template: WorkerTemplate) -> None:
        self._link = link
        self._template = template
        self._children: dict[int, Child] = {}
        self._orphaned: OrphanClock | None = None
        self._parted = False  # a worker has left as all others were told to
        # Kept even if reported: a daemon that died may not have saved the report.
        self._ended: deque[links.Reaped] = deque(maxlen=_ENDS)
        self._signals = ChildSignals()
        self._stopped: set[int] = set()  # pids of children that a signal has stopped
        self._epoll = epoll()
        self._epoll.register(link, EPOLLIN)
        self._epoll.register(self._signals.fd, EPOLLIN)
        self._departures = Departures(template, self._epoll) if template.pool.hooks else None

    def run(self) -> None:
        """Fork and reap until told to leave. Workers stay: they become children of the daemon."""
        while self._turn():
            pass
        if self._departures is not None:
            self._departures.finish()

    def _turn(self) -> bool:
        clock = self._orphaned
        if clock is None:
            events = self._epoll.poll()
        else:
            heard, children = self._link.fileno() >= 0, bool(self._children)
            events = self._epoll.poll(clock.wait(time.monotonic(), heard=heard, children=children))
            if not self._wait_for_daemon(clock, time.monotonic()):
                return False
        return all(self._attend(fd) for fd, _ in events) and not (self._parted and not self._children)

    def _attend(self, fd: int) -> bool:
        """Handle one descriptor that is ready. False: the zygote is to exit."""
        if fd == self._signals.fd:
            self._report_stops()
            return True
        if self._departures is not None and fd in self._departures:
            self._departures.reap(fd)
            return True
        return self._reap(fd) if fd in self._children else self._hear()

    def _report_stops(self) -> None:
        """Report the workers that were stopped or continued."""
        for halt in self._signals.read():
            child = next((one for one in self._children.values() if one.pid == halt.pid), None)
            if child is None:  # a process that the application started while it was loaded
                continue
            if halt.stopped:
                self._stopped.add(halt.pid)
                self._template.listening.wake_workers()
            else:
                self._stopped.discard(halt.pid)
            if self._orphaned is None:  # else the next daemon is told when it has adopted this zygote
                self._say(links.Stopped(child.serial) if halt.stopped else links.Continued(child.serial))

    def _hear(self) -> bool:
        """Handle one message of the daemon. False: the zygote is to exit."""
        try:
            received = fds.receive(self._link, links.LIMIT, PASSED)
        except OSError:
            received = b"", []
        if received is None:
            return True
        datagram, passed = received
        if not datagram:
            return self._lose_daemon()
        return self._perform(links.decode(datagram, _ORDERS), passed)

    def _perform(self, order: links.Message, passed: list[int]) -> bool:
        """Carry out one order; `passed` are the descriptors that came with it. False: the zygote is to exit."""
        if isinstance(order, links.Fork) and len(passed) == PASSED:
            self._fork(order, passed)
            return True
        fds.close_all(passed)  # only a fork needs any
        match order:
            case links.Fork(serial):
                self._say(links.ForkFailed(serial, "descriptors were lost on the way"))
            case links.Learn(modules):
                self._learn(modules)
            case links.Adopted():
                self._adopted()
            case links.Introduce():
                self._introduce()
            case _:
                return False
        return True

    def _adopted(self) -> None:
        """A daemon has adopted this zygote: report the workers that are stopped, which it does not know."""
        self._orphaned, self._parted = None, False
        for child in self._children.values():
            if child.pid in self._stopped:
                self._say(links.Stopped(child.serial))

    def _lose_daemon(self) -> bool:
        """The link has ended. False: no other daemon will come, so the zygote exits; workers leave by themselves."""
        home, pool = self._template.home, self._template.pool
        if home is None or pool.orphan_timeout == 0:
            return False
        self._epoll.unregister(self._link)
        self._link.close()
        if self._orphaned is None:
            self._orphaned = OrphanClock(time.monotonic(), pool.orphan_timeout, pool.drain_timeout)
        return True

    def _wait_for_daemon(self, clock: OrphanClock, now: float) -> bool:
        """Call a daemon if it is time. False: the zygote gives up and has killed the workers that have not left."""
        if clock.is_over(now, children=bool(self._children)):
            for pidfd, child in self._children.items():
                process.send_group_signal(pidfd, child.pid, signal.SIGKILL)
                process.send_signal(pidfd, signal.SIGKILL)
            return False
        if self._link.fileno() >= 0 or not clock.may_call(now):
            return True
        assert self._template.home is not None
        link = call_home(self._template.home)
        if link is not None:
            self._link = link
            self._epoll.register(link, EPOLLIN)
        return True

    def _learn(self, modules: Sequence[str]) -> None:
        self._template, notes = learning.taught(self._template, self._link, modules)
        self._say(links.Learned([links.clip(note) for note in notes]))

    def _introduce(self) -> None:
        """Tell a daemon that took the call which zygote this is. If that fails the link ends, and calls go on."""
        home, wanted, clock = self._template.home, self._template.wanted, self._orphaned
        if home is None or clock is None:
            return
        children = [[child.serial, child.pid] for child in self._children.values()]
        ended = [[-1 if value is None else value for value in reaped] for reaped in self._ended]
        late = clock.is_late(time.monotonic())
        introduce(self._link, home, links.CallHome(wanted.pool, wanted.generation, 0, late, children, ended))

    def _fork(self, order: links.Fork, passed: list[int]) -> None:
        # Before the fork, because handlers of the application run first in the child and may hang.
        stacks.tell_to(passed[STACKS])
        try:
            buffer = AccessBuffer() if self._template.pool.access_log else None
            pid = os.fork()
        except OSError as exc:  # EAGAIN, ENOMEM: transient; the daemon tries again
            self._say(links.ForkFailed(order.serial, f"fork: {exc.strerror}"))
            pid = -1
        if pid == 0:
            self._forget()
            become(self._template, order, buffer, passed)
        stacks.tell_to(self._template.stacks)
        fds.close_all(passed)
        if pid < 0:
            return
        try:
            # At once: while the child is not reaped its pid cannot belong to another process.
            pidfd = process.open_pidfd(pid)
        except OSError as exc:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._say(links.ForkFailed(order.serial, f"open its pidfd: {exc.strerror}"))
            return
        self._children[pidfd] = Child(order.serial, pid, buffer)
        self._epoll.register(pidfd, EPOLLIN)
        self._say(links.Forked(order.serial, pid))

    def _forget(self) -> None:
        """In the child: close the zygote's descriptors, which would keep links and siblings from ending."""
        self._signals.close()
        self._epoll.close()
        self._link.close()
        fds.close_all(self._children)
        if self._departures is not None:
            self._departures.forget()
        for sibling in self._children.values():
            if sibling.buffer is not None:
                sibling.buffer.close()
        if self._template.home is not None:
            os.close(self._template.home.stderr)

    def _reap(self, pidfd: int) -> bool:
        child = self._children.pop(pidfd)
        self._stopped.discard(child.pid)
        self._epoll.unregister(pidfd)
        try:
            ended = process.reap(pidfd) or process.Ended()
        except ChildProcessError:  # an application that waits for any child has reaped it
            ended = process.Ended()
        os.close(pidfd)
        reaped = links.Reaped(child.serial, ended.exit_code, ended.signal)
        self._ended.append(reaped)
        self._parted |= self._orphaned is not None and ended.exit_code == links.ALONE
        self._say(reaped)
        self._template.listening.wake_workers()
        if child.buffer is not None:
            rescue(self._template.pool.access_log, child.buffer)
        if self._departures is not None:
            self._departures.tell(child.serial, child.pid, ended, self._forget)
        return True

    def _say(self, message: links.Message) -> None:
        """Send a message. Without a daemon it is lost, except for the ends of workers, which the next call reports."""
        with contextlib.suppress(OSError):  # the end of the link will be read, or has been
            fds.send(self._link, links.encode(message), wait=True)
