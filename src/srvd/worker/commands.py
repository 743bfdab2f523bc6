"""Obeys the commands that the daemon sends over the link (serve, probe, drain, …), and answers them.

Turns the command to drain into deadlines; each connection decides what it does when its deadline passes.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from select import EPOLLIN
from typing import NamedTuple

from srvd.errors import BadFrame
from srvd.ids import WorkerId
from srvd.linux.processes import dispositions
from srvd.wire import links
from srvd.worker import warming
from srvd.worker.context import WorkerContext
from srvd.worker.link import Link
from srvd.worker.loop import NEVER
from srvd.worker.net.acceptor import Acceptor
from srvd.worker.net.phase import Phase
from srvd.worker.reconnect import Home, Reconnector, introduce
from srvd.worker.wsgi.probe import probe

__all__ = ["Commands", "Patience"]

# When the whole server stops: seconds for a client between two requests, and for one that has not sent its first.
_LAST_IDLE = 1.0
_LAST_FIRST = 2.0
# And for a client that has its answer and does not close: the kernel sends buffered bytes after the close, too.
_LAST_LINGER = 0.5
# Seconds between two checks of a worker replaced because of a hanging call: whether only such calls are left.
_LOOK = 0.5


class Patience(NamedTuple):
    """Seconds that a worker waits: for its requests when it leaves, and for the next daemon when its own has died."""

    drain: float
    orphan: float = 0.0


class Commands:
    """Obeys the messages of the daemon, and SIGTERM as an order to drain."""

    def __init__(
        self,
        context: WorkerContext,
        acceptor: Acceptor,
        link: Link,
        name: WorkerId,
        patience: Patience,
        home: Home | None = None,
    ) -> None:
        """`home` None: the worker cannot reach another daemon, and leaves at the end of the link."""
        self._context = context
        self._acceptor = acceptor
        self._link = link
        self._name = name
        self._patience = patience
        self._dismissed = False  # the whole server stops: no other daemon will come
        self._term = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._modules: frozenset[str] | None = None  # before the first probe or warm request
        self._heard_end = False
        self._draining = False
        self._until = NEVER  # the end of the drain
        self._late = 0.0  # do not wait for calls without output for so many seconds; 0.0: wait for all calls
        self.deadline = NEVER
        context.connections.on_left = self._left
        context.loop.urgent = self.look
        context.loop.add(link.sock.fileno(), EPOLLIN, self._on_link)
        context.loop.add(self._term, EPOLLIN, self._on_term)
        context.loop.watch(self)
        self._home = home
        self._orphan = None
        if home is not None and patience.orphan > 0:
            self._orphan = Reconnector(context.loop, home, self._new_link, self._unfound)
        self._pid = os.getpid()
        signal.signal(signal.SIGTERM, self._on_sigterm)
        # Ctrl-C in a terminal signals the whole process group; the daemon decides what follows. Not SIG_IGN, which
        # programs started by the application would inherit.
        signal.signal(signal.SIGINT, _no_matter)
        dispositions.claim()

    def look(self, now: float) -> None:
        """Obeys all messages that wait on the link."""
        while not self._heard_end:
            try:
                message = self._link.hear()
            except (EOFError, BadFrame) as exc:
                self._end_of_link(exc, now)
                return
            if message is None:
                return
            self._obey(message, now)

    @property
    def code(self) -> int:
        """The exit code of a worker that has left in order."""
        return links.ALONE if self._dismissed and self._heard_end else 0

    def expire(self, now: float) -> None:
        """Closes all connections at the end of the drain; before it, checks whether only late calls are left."""
        if now < self._until:
            self.deadline = min(self._until, now + _LOOK)
            self._left(now)
            return
        self.deadline = NEVER
        open_now = len(self._context.connections.all)
        self._context.log.warning(f"draining took too long: closing {open_now} connection{'s' * (open_now != 1)}")
        self._acceptor.emptying = False
        for connection in tuple(self._context.connections.all):
            connection.close(now)
        self._context.loop.stop()

    def _obey(self, message: links.Message, now: float) -> None:
        match message:
            case links.Serve():
                if not self._draining:
                    self._acceptor.open()
                    self._link.say(links.Serving(), wait=True)
                    if self._context.recycling is not None:
                        self._context.recycling.begin(now)
            case links.Probe(path, _):  # the daemon keeps its time
                self._modules = self._modules or warming.modules()
                self._link.say(probe(self._context, path), wait=True)
            case links.Warm(paths):
                self._modules = self._modules or warming.modules()
                warming.ask(self._context, paths)
                self._link.say(links.Warmed(warming.imported_since(self._modules)), wait=True)
            case links.Reopen():
                access = self._context.access
                self._link.say(links.Reopened("" if access is None else access.reopen()), wait=True)
            case links.Ping():
                self._link.say(links.Pong())
            case links.Drain(seconds, leaving, left_over, late):
                self._dismissed = self._dismissed or leaving
                self._late = late
                self._drain(now, seconds, leaving=leaving, left_over=left_over)
            case links.Introduce() if self._home is not None:
                introduce(self._link.sock, self._home, links.CallHome(*self._name, self._draining, [], []))
            case links.Adopted() if self._orphan is not None and self._orphan.alone:
                self._orphan.adopted()
                if self._context.lifeline is not None:
                    self._context.lifeline.held()
                self._context.log.info("a new daemon has adopted this worker")

    def _drain(self, now: float, seconds: float, *, leaving: bool, left_over: Sequence[int] = ()) -> None:
        """Finishes the open requests, within `seconds`; a second order can only shorten the time."""
        context = self._context
        self._draining = context.closing = True
        self._until = min(self._until, now + seconds)
        self.deadline = min(self._until, now + _LOOK) if self._late else self._until
        context.loop.due_at(self.deadline)
        if leaving:
            self._leave(now, left_over)
        else:
            self._acceptor.shut(now, stuck=bool(self._late))
        self._left(now)

    def _leave(self, now: float, left_over: Sequence[int]) -> None:
        """Drains when the whole server stops: accepts all clients in the backlog, and waits less for silent ones."""
        times = self._context.times
        times.idle = min(times.idle, _LAST_IDLE)
        times.first = min(times.first, _LAST_FIRST)
        times.linger = _LAST_LINGER
        for connection in self._context.connections.all:
            if connection.phase is Phase.IDLE:
                connection.hurry(now + (_LAST_IDLE if connection.served else _LAST_FIRST))
            elif connection.phase is Phase.LINGERING:
                connection.hurry(now + _LAST_LINGER)
        self._acceptor.empty(now, left_over)

    def _left(self, now: float) -> None:
        """Stops the loop if a drain has no connection left to wait for; without a drain, lets the acceptor go on."""
        if not self._draining or self._acceptor.emptying:
            self._acceptor.room(now)
        elif len(self._context.connections.all) <= (self._context.late_calls(now - self._late) if self._late else 0):
            self._context.loop.stop()

    def _on_link(self, mask: int, now: float) -> None:
        self.look(now)

    def _end_of_link(self, exc: Exception, now: float) -> None:
        """Begins to call for a new daemon, or to drain, after the daemon has died or has sent a malformed message.

        A worker in standby drains: without a daemon it would never serve.
        """
        self._heard_end = True
        self._context.loop.remove(self._link.sock.fileno())
        if self._context.lifeline is not None:
            self._context.lifeline.lost(now)
        orphan, lives_on = self._orphan, isinstance(exc, EOFError) and not self._dismissed
        if orphan is None or not lives_on or not (self._acceptor.opened or self._draining):
            self._context.log.warning(f"the link to the daemon ended ({exc or 'end of file'}); draining")
            self._drain(now, self._patience.drain, leaving=True)
            return
        if not orphan.alone and not self._draining:
            self._context.log.warning(
                f"the daemon has died; serving on for {self._patience.orphan:g} s, for a new one to come"
            )
        orphan.begin(now, self._patience.orphan)

    # -- without a daemon -----------------------------------------------------------------------------------------

    def _new_link(self, sock: socket.socket) -> None:
        """Takes a link to a process that answers the worker's calls, and that will send `Introduce` and `Adopted`."""
        former, self._link.sock = self._link.sock, sock
        former.close()
        self._context.loop.add(sock.fileno(), EPOLLIN, self._on_link)
        self._heard_end = False

    def _unfound(self, now: float) -> None:
        self._context.log.warning(f"no new daemon came within {self._patience.orphan:g} s; draining")
        self._drain(now, self._patience.drain, leaving=True)

    def _on_sigterm(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:
            # A child that the application forked, for example by multiprocessing: the signal ends it, as by default.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        os.eventfd_write(self._term, 1)

    def _on_term(self, mask: int, now: float) -> None:
        os.eventfd_read(self._term)
        self._drain(now, self._patience.drain, leaving=False)


def _no_matter(number: int, frame: object) -> None:
    """Does nothing: the daemon gets the signal, too, and decides."""
