"""Hears the orphans of a daemon that died: who calls at the rendezvous, as what, and with which descriptors.

Adopts nobody and ends nobody. A caller proves by the family's lock, which it brings, that it is of the family; whether
it is who it says is for the reader of the state to compare.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

from srvd.core.model import GenerationId, WorkerId
from srvd.daemon.will import Mark, mark_of
from srvd.errors import BadFrame
from srvd.linux import fds, process
from srvd.linux.process import Ended
from srvd.linux.rendezvous import Caller, Rendezvous
from srvd.record import Record
from srvd.wire import family

__all__ = ["Calls", "Estate", "Orphan"]

_MOST_SILENT = 128
"""Callers that have not said yet who they are; whoever comes then takes the place of the first of them."""

_BATCH = 64


class Orphan(Record):
    """One that called. The descriptors are the reader's now; -1: an `Estate` or a `Bond` has it."""

    here: family.Here
    pid: int  # by the kernel's word
    pidfd: int
    link: socket.socket
    stderr: int  # the end that is read
    stacks: int
    board: int
    lock: int
    listeners: list[int]
    lifeline: int  # of a zygote's workers; -1 for a worker

    @property
    def id(self) -> WorkerId | GenerationId:
        here = self.here
        generation = GenerationId(here.pool, here.generation)
        return WorkerId(*generation, here.serial) if here.serial else generation

    def ends(self) -> list[tuple[int, Ended]]:
        """Of a zygote: how children of it ended lately, by serial."""
        return [
            (serial, Ended(code if code >= 0 else None, number if number >= 0 else None))
            for serial, code, number in self.here.ended
        ]

    def dismiss(self) -> None:
        """Tell it to leave, and let go of it. What waits in the backlogs is for the next one."""
        order: family.Message = family.Quit()
        if self.here.serial:
            order = family.Drain(_LEAVE_SECONDS, leaving=True, left_over=list(range(len(self.listeners))))
        with contextlib.suppress(OSError):  # it is gone
            fds.send(self.link, family.encode(order))
        self.close()

    def close(self) -> None:
        self.link.close()
        owned = (self.pidfd, self.stderr, self.stacks, self.board, self.lock, self.lifeline, *self.listeners)
        fds.close_all(fd for fd in owned if fd >= 0)


_LEAVE_SECONDS = 30.0


class Estate:
    """What orphans bring that is one for all of them, scoreboard and listeners: each once, however many call."""

    def __init__(self) -> None:
        self.brought: dict[Mark, int] = {}

    def take(self, orphan: Orphan) -> Orphan:
        """The orphan without these and without the lock, which is the bond's to look at."""
        for fd in (orphan.board, *orphan.listeners):
            if self.brought.setdefault(mark_of(fd), fd) != fd:
                os.close(fd)
        return orphan._replace(board=-1, lock=-1, listeners=[-1] * len(orphan.listeners))

    def sockets(self) -> list[int]:
        """The listeners; the rest is closed."""
        taken = [fd for (is_socket, _), fd in self.brought.items() if is_socket]
        self.brought = {mark: fd for mark, fd in self.brought.items() if not mark[0]}
        self.close()
        return taken

    def close(self) -> None:
        fds.close_all(self.brought.values())
        self.brought.clear()


class Calls:
    """Owns the rendezvous and who waits there; `fileno` is readable when there is something to `hear`."""

    def __init__(self, name: str, lock: int) -> None:
        """`lock`: a descriptor of the family's lock, held or not. Raises `SystemRefused`: the name is taken."""
        entry = os.fstat(lock)
        self._lock = entry.st_dev, entry.st_ino
        self._rendezvous = Rendezvous(name)
        self._silent: dict[int, Caller] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._rendezvous, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def hear(self, seconds: float = 0.0) -> list[Orphan]:
        """Those who have said who they are, after at most so many seconds. Raises `OSError` (EMFILE and the like)."""
        found = []
        for fd, _ in self._epoll.poll(seconds):
            if fd in self._silent:
                caller = self._forget(fd)
                orphan = self._identify(caller)
                if orphan is None:
                    caller.sock.close()
                else:
                    found.append(orphan)
            else:
                self._accept()
        return found

    def close(self) -> None:
        """Whoever has not been heard calls again, for the next daemon."""
        for caller in self._silent.values():
            caller.sock.close()
        self._silent.clear()
        self._epoll.close()
        self._rendezvous.close()

    def _accept(self) -> None:
        for _ in range(_BATCH):
            caller = self._rendezvous.accept()
            if caller is None:
                return
            if len(self._silent) == _MOST_SILENT:
                self._forget(next(iter(self._silent))).sock.close()
            self._silent[caller.sock.fileno()] = caller
            self._epoll.register(caller.sock, select.EPOLLIN)

    def _forget(self, fd: int) -> Caller:
        self._epoll.unregister(fd)
        return self._silent.pop(fd)

    def _identify(self, caller: Caller) -> Orphan | None:
        """None: it is gone, or not of the family."""
        try:
            received = fds.receive(caller.sock, family.LIMIT, fds.FDS_LIMIT)
        except (OSError, BadFrame):
            return None
        if received is None:
            return None
        datagram, passed = received
        try:
            here = family.decode(datagram, family.FROM_ORPHAN)
            entry = os.fstat(passed[3])
            is_family = (entry.st_dev, entry.st_ino) == self._lock
            if not isinstance(here, family.Here) or not _is_whole(here) or not is_family:
                raise BadFrame("it is not of the family")
            pidfd = process.open_pidfd(caller.pid)
        except (OSError, BadFrame, IndexError):
            fds.close_all(passed)
            return None
        os.set_blocking(passed[0], False)
        lifeline = -1 if here.serial or len(passed) < 5 else passed.pop(4)
        stderr, stacks, board, lock, *listeners = passed
        return Orphan(here, caller.pid, pidfd, caller.sock, stderr, stacks, board, lock, listeners, lifeline)


def _is_whole(here: family.Here) -> bool:
    return all(len(row) == 2 for row in here.children) and all(len(row) == 3 for row in here.ended)
