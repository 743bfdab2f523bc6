"""Lets a worker or zygote whose daemon has died find the next daemon: it calls until one answers, or its time is over.

Serves nothing and ends nothing: the caller decides what follows when no daemon comes.
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

from srvd.ids import WorkerId
from srvd.linux import fds, rendezvous
from srvd.wire import links
from srvd.worker.loop import NEVER, Loop
from srvd.worker.supervision.deadman import Deadman

__all__ = ["CALL_PAUSE", "Home", "Reconnector", "call_home", "introduce"]

CALL_PAUSE = 0.2
"""Seconds between two calls, each one system call: only orphans make them."""

_ROOM = 1 << 20
"""Bytes of stderr kept for the next daemon; the largest pipe that an ordinary user may ask for (pipe(7))."""


class Home(NamedTuple):
    """What a worker or zygote needs to be adopted by another daemon. It owns the descriptors, and keeps them open."""

    name: str  # of the rendezvous
    uid: int  # of the daemon
    lock: int  # an open file description of this generation: its lock tells the next daemon that a process is alive
    bell: int
    board: int
    listeners: tuple[int, ...]
    stderr: int  # the reading end: as long as a process has it open, no write fails with EPIPE
    stacks: int  # the file for its stacks
    lifeline: int = -1  # of a zygote: the end that supervisors hold, to be passed to the next daemon


def call_home(home: Home) -> socket.socket | None:
    """Returns a new link, on which `Introduce` may arrive; None if no daemon listens yet."""
    return rendezvous.call(home.name, home.uid)


def introduce(link: socket.socket, home: Home, here: links.CallHome) -> None:
    """Sends the identity and descriptors of this process. Shuts the link down if that fails, so that the process calls
    again.
    """
    lifeline = (home.lifeline,) if here.serial == 0 else ()
    passed = (home.stderr, home.stacks, home.bell, home.board, *lifeline, *home.listeners)
    try:
        said = fds.send(link, links.encode(here), passed[: fds.FDS_LIMIT])
    except OSError:  # the listener has gone, or descriptors are short
        said = False
    if not said:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)


class Reconnector:
    """The calls of a worker. Does nothing, and costs nothing, before `begin`."""

    def __init__(self, loop: Loop, home: Home, name: WorkerId, patience: float, deadman: Deadman | None) -> None:
        """`patience`: seconds to wait for a daemon; `deadman` keeps the worker alive without supervisors."""
        self.deadline = NEVER
        self.alone = False
        self._loop = loop
        self._home = home
        self._name = name
        self._patience = patience
        self._deadman = deadman
        self._on_link: Callable[[socket.socket], None] = socket.socket.close
        self._on_over: Callable[[float], None] = _nothing
        self._until = NEVER
        loop.watch(self)

    def tell_to(self, on_link: Callable[[socket.socket], None], on_over: Callable[[float], None]) -> None:
        """Sets the functions to call with a new link, and when no daemon has come in time."""
        self._on_link = on_link
        self._on_over = on_over

    def introduce(self, link: socket.socket, *, draining: bool) -> None:
        """Tells a daemon that has answered a call which worker this is."""
        introduce(link, self._home, links.CallHome(*self._name, draining, [], []))

    def lost(self, now: float) -> None:
        """Starts the alarm of a worker without supervisors again, since its daemon is gone."""
        if self._deadman is not None:
            self._deadman.lost(now)

    def begin(self, now: float) -> None:
        """Begins to call, after the link has ended. Called again before `adopted` if the daemon that answered has died
        as well.
        """
        if not self.alone:
            self.alone = True
            self._until = now + self._patience
            os.set_blocking(self._home.stderr, False)
            widen(self._home.stderr)
            self._loop.add(self._home.stderr, EPOLLIN | EPOLLET, self._spill)
        self._due(now)

    def adopted(self) -> None:
        if self.alone:
            self.alone = False
            self.deadline = self._until = NEVER
            self._loop.remove(self._home.stderr)
            if self._deadman is not None:
                self._deadman.held()

    def expire(self, now: float) -> None:
        """Makes the next call, and reports the end of the time once. Calls on after that, while the worker drains: the
        next daemon can still get its listeners.
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
        """Discards the oldest half of the unread stderr before a write would block."""
        spill(self._home.stderr)


def _nothing(now: float) -> None:
    """Does nothing, until `tell_to` sets another function."""


def widen(pipe: int) -> None:
    """Enlarges a pipe that is not read at present."""
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _ROOM)
    except OSError:  # EPERM, EBUSY: the user has too many large pipes; the pipe stays small
        return


def spill(pipe: int) -> None:
    """Reads and discards the oldest half of a pipe that is more than half full. The descriptor must not block."""
    room = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    held = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, held)
    if held[0] > room // 2:
        os.read(pipe, room // 2)
