"""Receives the orphans of a daemon that died: their connections to the rendezvous, their identity, their descriptors.

Adopts and ends no process. A caller is asked to introduce itself only if the kernel reports a user of the family
(unix(7), SO_PEERCRED); until then the caller can pass no descriptors. Descriptors are checked before use. The claimed
identity is compared with the saved state elsewhere (`recovery/gathering.py`).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Collection, Iterable, Mapping, Set

from srvd.config.settings import Config
from srvd.daemon.children.stack_file import SIZE as STACKS
from srvd.daemon.recovery.envelope import Mark, mark_of
from srvd.errors import BadFrame
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds
from srvd.linux.processes import identity, process
from srvd.linux.processes.process import Ended
from srvd.linux.rendezvous import Caller, Rendezvous
from srvd.linux.scoreboard import Bell
from srvd.record import Record
from srvd.wire import links

__all__ = ["Calls", "Orphan", "SharedFds", "Users", "users_of"]

_MOST_SILENT = 128
"""Limit of callers that have not introduced themselves. At the limit a new caller displaces the oldest one."""

_BATCH = 64


Users = Mapping[str, Set[int]]
"""The user ids of each pool's processes, by pool name."""


def users_of(configs: Iterable[Config]) -> Users:
    """Return the users of all pools in these configurations."""
    found: dict[str, set[int]] = {}
    for config in configs:
        for pool in config.pools.values():
            with contextlib.suppress(LookupError):  # a user that is no more
                uid = identity.uid_of(pool.user)
                found.setdefault(pool.name, set()).add(os.geteuid() if uid < 0 else uid)
    return found


class Orphan(Record):
    """A process that called. The holder of this record owns the descriptors; -1: moved to `SharedFds` or not passed."""

    call: links.CallHome
    pid: int  # as reported by the kernel
    pidfd: int
    link: socket.socket
    stderr: int  # the read end
    stacks: int
    bell: int
    board: int
    listeners: list[int]
    lifeline: int  # of a zygote's workers; -1 for a worker

    @property
    def id(self) -> WorkerId | GenerationId:
        call = self.call
        generation = GenerationId(call.pool, call.generation)
        return WorkerId(*generation, call.serial) if call.serial else generation

    def ends(self) -> list[tuple[int, Ended]]:
        """Return how children of this zygote ended recently, with their serials."""
        return [
            (serial, Ended(code if code >= 0 else None, number if number >= 0 else None))
            for serial, code, number in self.call.ended
        ]

    def without(self, taken: Collection[int]) -> Orphan:
        """Return the orphan with -1 in place of these descriptors, which have another owner."""
        rest = [-1 if fd in taken else fd for fd in (self.bell, self.board, *self.listeners)]
        return self._replace(bell=rest[0], board=rest[1], listeners=rest[2:])

    def dismiss(self) -> None:
        """Order the process to leave, and close its descriptors. The backlogs are left to the next daemon."""
        order: links.Message = links.Leave()
        if self.call.serial:
            order = links.Drain(_LEAVE_SECONDS, leaving=True, left_over=list(range(len(self.listeners))))
        with contextlib.suppress(OSError):  # the process is gone
            fds.send(self.link, links.encode(order))
        self.close()

    def close(self) -> None:
        owned = (self.pidfd, self.stderr, self.stacks, self.bell, self.board, self.lifeline)
        fds.close_all(fd for fd in owned if fd >= 0)
        fds.discard([self.link.detach(), *(fd for fd in self.listeners if fd >= 0)])


_LEAVE_SECONDS = 30.0


class SharedFds:
    """Descriptors that several orphans pass (bell, scoreboards, listeners), each kept once."""

    def __init__(self) -> None:
        self.brought: dict[Mark, int] = {}

    def take(self, orphan: Orphan) -> Orphan:
        """Take over the shared descriptors of an orphan; return the orphan without them."""
        taken = [fd for fd in (orphan.bell, orphan.board, *orphan.listeners) if fd >= 0]
        surplus = [fd for fd in taken if self.brought.setdefault(mark_of(fd), fd) != fd]
        fds.close_all(surplus)  # never blocks: another descriptor of the same open file is kept
        return orphan.without(taken)

    def sockets(self) -> list[int]:
        """Return the listeners; close all other descriptors."""
        taken = [fd for (kind, _), fd in self.brought.items() if kind == fds.SOCKET]
        self.brought = {mark: fd for mark, fd in self.brought.items() if mark[0] != fds.SOCKET}
        self.close()
        return taken

    def close(self) -> None:
        fds.discard(self.brought.values())
        self.brought.clear()


class Calls:
    """Owns the rendezvous and the connections to it; `fileno` is readable when there is something to `hear`."""

    def __init__(self, name: str, users: Users | None) -> None:
        """`users`: the users of each pool; None: unknown, and members may be of a version that passes descriptors
        without being asked. Raises `SystemRefused`: the name is taken.
        """
        self._users = users
        self._rendezvous = Rendezvous(name, eager=users is None)
        self._silent: dict[int, Caller] = {}
        self._epoll = select.epoll()
        self._epoll.register(self._rendezvous, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def hear(self, seconds: float = 0.0) -> list[Orphan]:
        """Return the callers that have introduced themselves, after at most `seconds`. Raises `OSError` (EMFILE…)."""
        found = []
        for fd, _ in self._epoll.poll(seconds):
            if fd in self._silent:
                caller = self._forget(fd)
                orphan = self._identify(caller)
                if orphan is None:
                    _drop(caller)
                else:
                    found.append(orphan)
            else:
                self._accept()
        return found

    def close(self) -> None:
        """Drop the callers that have not introduced themselves; they call again, for the next daemon."""
        for caller in self._silent.values():
            _drop(caller)
        self._silent.clear()
        self._epoll.close()
        self._rendezvous.close()

    def _accept(self) -> None:
        for _ in range(_BATCH):
            caller = self._rendezvous.accept()
            if caller is None:
                return
            if not self._is_family(caller.uid):
                fds.close_link(caller.sock)  # nothing to discard: the caller could pass no descriptors
                continue
            if not _ask(caller):
                _drop(caller)
                continue
            if len(self._silent) == _MOST_SILENT:
                _drop(self._forget(next(iter(self._silent))))
            self._silent[caller.sock.fileno()] = caller
            self._epoll.register(caller.sock, select.EPOLLIN)

    def _is_family(self, uid: int) -> bool:
        return self._users is None or any(uid in users for users in self._users.values())

    def _forget(self, fd: int) -> Caller:
        self._epoll.unregister(fd)
        return self._silent.pop(fd)

    def _identify(self, caller: Caller) -> Orphan | None:
        """Read the caller's introduction; None: the caller is gone, or is not of the family."""
        try:
            received = fds.receive(caller.sock, links.LIMIT, fds.FDS_LIMIT)
        except (OSError, BadFrame):
            return None
        if received is None:
            return None
        fds.refuse_rights(caller.sock)
        datagram, passed = received
        try:
            call = links.decode(datagram, links.FROM_ORPHAN)
            if not isinstance(call, links.CallHome) or not _is_whole(call) or not self._may_be(call.pool, caller.uid):
                raise BadFrame("it is not of the family")
            pidfd = process.open_pidfd(caller.pid)
        except (OSError, BadFrame):
            fds.discard(passed)
            return None
        return _orphan(call, caller, pidfd, passed)

    def _may_be(self, pool: str, uid: int) -> bool:
        return self._users is None or uid in self._users.get(pool, ())


def _ask(caller: Caller) -> bool:
    """Ask the caller to introduce itself; False: the caller is gone."""
    fds.refuse_rights(caller.sock, on=False)
    try:
        return fds.send(caller.sock, links.encode(links.Introduce()))
    except OSError:
        return False


def _orphan(call: links.CallHome, caller: Caller, pidfd: int, passed: list[int]) -> Orphan:
    """Make an orphan with the passed descriptors, as far as their kinds and order are right. An orphan with a wrong
    set gets -1 for all but its listeners, and can only be told to leave.
    """
    stderr = stacks = bell = board = lifeline = -1
    form = [fds.PIPE, fds.MEMFD, fds.MEMFD, fds.MEMFD, *([] if call.serial else [fds.PIPE])]
    listeners = [fd for fd in passed if fds.kind(fd) == fds.SOCKET]
    others = [fd for fd in passed if fd not in listeners]
    if (
        [fds.kind(fd) for fd in others] == form
        and fds.is_sealed(others[1], STACKS)
        and fds.is_sealed(others[2], Bell.SIZE)
    ):
        with contextlib.suppress(OSError):
            others[0] = fds.own_reader(others[0])
            stderr, stacks, bell, board, *rest = others
            lifeline, others = (rest[0] if rest else -1), []
    fds.discard(others)
    return Orphan(call, caller.pid, pidfd, caller.sock, stderr, stacks, bell, board, listeners, lifeline)


def _drop(caller: Caller) -> None:
    """Close the caller's connection in the background, with all that the caller has sent."""
    fds.discard([caller.sock.detach()])


def _is_whole(call: links.CallHome) -> bool:
    return all(len(row) == 2 for row in call.children) and all(len(row) == 3 for row in call.ended)
