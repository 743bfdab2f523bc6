"""A member of the family whose daemon has died: it calls for the next one, until one comes or its patience ends.

Serves nothing and ends nothing: what to do when nobody came is decided by who has been told so.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import termios
from collections.abc import Callable
from select import EPOLLET, EPOLLIN
from typing import NamedTuple

from srvd.linux import fds, rendezvous
from srvd.wire import links
from srvd.worker.loop import NEVER, Loop

__all__ = ["CALL_PAUSE", "Home", "Reconnector", "call_home", "introduce"]

CALL_PAUSE = 0.2
"""Seconds between two calls, each one system call: only orphans make them."""

_ROOM = 1 << 20
"""Bytes of stderr that wait for the next daemon; the most that an ordinary user may ask for (pipe(7))."""


class Home(NamedTuple):
    """What a member needs to be found again. The descriptors stay its own, and open."""

    name: str  # of the rendezvous
    uid: int  # of the daemon
    lock: int  # a description of this generation's own: the next daemon sees by it that somebody lives
    bell: int
    board: int
    listeners: tuple[int, ...]
    stderr: int  # the end that is read: as long as somebody has it, no write fails for want of a reader
    stacks: int  # the file for its stacks
    lifeline: int = -1  # of a zygote: the end to hold, for the next daemon to hold as well


def call_home(home: Home) -> socket.socket | None:
    """A new link, on which `Introduce` may come; None: nobody waits for it yet."""
    return rendezvous.call(home.name, home.uid)


def introduce(link: socket.socket, home: Home, here: links.CallHome) -> None:
    """Say who we are. A link that does not take it is of no use, and is ended: then the next call may do."""
    lifeline = (home.lifeline,) if here.serial == 0 else ()
    passed = (home.stderr, home.stacks, home.bell, home.board, *lifeline, *home.listeners)
    try:
        said = fds.send(link, links.encode(here), passed[: fds.FDS_LIMIT])
    except OSError:  # whoever waited has gone, or descriptors are short
        said = False
    if not said:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)


class Reconnector:
    """A worker's part in it; does nothing, and costs nothing, before `begin`."""

    def __init__(
        self,
        loop: Loop,
        home: Home,
        on_link: Callable[[socket.socket], None],
        on_over: Callable[[float], None],
    ) -> None:
        self.deadline = NEVER
        self.alone = False
        self._loop = loop
        self._home = home
        self._on_link = on_link
        self._on_over = on_over
        self._until = NEVER
        loop.watch(self)

    def begin(self, now: float, patience: float) -> None:
        """The link has ended. Again before `adopted`: then whoever took the call has died as well."""
        if not self.alone:
            self.alone = True
            self._until = now + patience
            os.set_blocking(self._home.stderr, False)
            widen(self._home.stderr)
            self._loop.add(self._home.stderr, EPOLLIN | EPOLLET, self._spill)
        self._due(now)

    def adopted(self) -> None:
        if self.alone:
            self.alone = False
            self.deadline = self._until = NEVER
            self._loop.remove(self._home.stderr)

    def expire(self, now: float) -> None:
        """Time for the next call, or the end of its patience; after that it calls on, as long as it is there: the next
        daemon can still have its listeners.
        """
        if now >= self._until:
            self._until = NEVER
            self._on_over(now)
        link = call_home(self._home)
        if link is None:
            self._due(now + CALL_PAUSE)
        else:
            self.deadline = NEVER
            self._due(self._until)
            self._on_link(link)

    def _due(self, when: float) -> None:
        self.deadline = min(when, self._until)
        self._loop.due_at(self.deadline)

    def _spill(self, mask: int, now: float) -> None:
        """Nobody reads its stderr: the oldest half goes before a write would have to wait."""
        spill(self._home.stderr)


def widen(pipe: int) -> None:
    """Give a pipe the room for what nobody reads at present."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _ROOM)
    except OSError:  # EPERM, EBUSY: the user has too many large pipes; the small one has to do
        return


def spill(pipe: int) -> None:
    """Take the oldest half out of a pipe that is more than half full. The reading end does not block."""
    room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    held = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, held)
    if held[0] > room // 2:
        os.read(pipe, room // 2)
