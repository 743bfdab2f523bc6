"""Obeys the commands that the daemon sends over the link (serve, probe, drain, …), and answers them.

Finishes no request: `drain.py` turns the command to drain into deadlines. `reconnect.py` finds the next daemon.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from select import EPOLLIN
from typing import TYPE_CHECKING

from srvd.errors import BadFrame
from srvd.wire import links
from srvd.worker.context import WorkerContext
from srvd.worker.net.acceptor import Acceptor
from srvd.worker.recycling import Recycling
from srvd.worker.supervision import warming
from srvd.worker.supervision.drain import Drain, TermSignal
from srvd.worker.supervision.link import Link
from srvd.worker.supervision.probe import probe
from srvd.worker.supervision.reconnect import Reconnector

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.worker.observe.access_log import AccessLog

__all__ = ["Commands"]


class Commands:
    """Obeys the messages of the daemon, and SIGTERM as a command to drain."""

    def __init__(
        self,
        context: WorkerContext,
        acceptor: Acceptor,
        link: Link,
        settings: PoolSettings,
        recycling: Recycling,
        access: AccessLog | None,
        reconnector: Reconnector | None,
    ) -> None:
        """`reconnector` None: the worker cannot reach another daemon, and leaves at the end of the link."""
        self._context = context
        self._acceptor = acceptor
        self._link = link
        self._settings = settings
        self._recycling = recycling
        self._access = access
        self._reconnector = reconnector
        self._drain = Drain(context, acceptor)
        self._dismissed = False  # the whole server stops: no other daemon will come
        self._resumes = False  # it was told to serve
        self._held = False  # while the watcher of a pool under development waits for new code
        self._modules: frozenset[str] | None = None  # before the first probe or warm request
        context.loop.urgent = self.look
        context.loop.add(link.sock.fileno(), EPOLLIN, self._on_link)
        if reconnector is not None:
            reconnector.tell_to(self._new_link, self._unfound)
        TermSignal(context.loop, self._leave)

    def look(self, now: float) -> None:
        """Obeys all messages that wait on the link."""
        while not self._link.ended:
            try:
                message = self._link.hear()
            except (EOFError, BadFrame) as exc:
                self._end_of_link(exc, now)
                return
            if message is None:
                return
            self._obey(message, now)

    def warm_up(self, done: Callable[[], object]) -> None:
        """Requests the paths of `warm` and `health`, before READY, and calls `done` after the last reply."""
        settings = self._settings
        warming.ask(self._context, [*settings.warm, *([settings.health] if settings.health else [])], done)

    @property
    def code(self) -> int:
        """The exit code of a worker that has left in order."""
        return links.ALONE if self._dismissed and self._link.ended else 0

    def _obey(self, message: links.Message, now: float) -> None:
        match message:
            case links.Serve():
                self._serve(now)
            case links.Probe(path, _):  # the daemon keeps its time
                self._modules = self._modules or warming.modules()
                probe(self._context, path, self._settings.health_status, self._answer)
            case links.Warm(paths):
                self._modules = before = self._modules or warming.modules()
                warming.ask(self._context, paths, lambda: self._answer(links.Warmed(warming.imported_since(before))))
            case links.Reopen():
                self._answer(links.Reopened("" if self._access is None else self._access.reopen()))
            case links.Ping():
                self._link.say(links.Pong())
            case links.Drain(seconds, leaving, left_over, late):
                self._dismissed = self._dismissed or leaving
                self._drain.leave_late(late)
                self._drain.begin(now, seconds, leaving=leaving, left_over=left_over)
                if not leaving and not self._acceptor.emptying:
                    self._link.say(links.Closed(), wait=True)
            case links.Introduce() if self._reconnector is not None:
                self._reconnector.introduce(self._link.sock, draining=self._drain.begun)
            case links.Adopted() if self._reconnector is not None and self._reconnector.alone:
                self._reconnector.adopted()
                self._context.log.info("a new daemon has adopted this worker")

    def hold(self, now: float, *, on: bool) -> None:
        """Leaves new connections in the listeners' queues, or accepts them again; not once it drains."""
        opened, self._held = self._acceptor.opened, on and not self._drain.begun
        if self._held and opened:
            self._resumes = True
            self._acceptor.shut(now, stuck=True)
        elif not self._held and self._resumes and not self._drain.begun:
            self._acceptor.open()

    def _answer(self, message: links.Message) -> None:
        self._link.say(message, wait=True)

    def _serve(self, now: float) -> None:
        if not self._drain.begun:
            self._resumes = True
            if not self._held:
                self._acceptor.open()
            self._answer(links.Serving())
            self._recycling.begin(now)

    def _leave(self, now: float) -> None:
        """Drains after SIGTERM, without a command of the daemon."""
        self._drain.begin(now, self._settings.drain_timeout, leaving=False)

    def _on_link(self, mask: int, now: float) -> None:
        self.look(now)

    def _end_of_link(self, exc: Exception, now: float) -> None:
        """Begins to call for a new daemon, or to drain, after the daemon has died or has sent a malformed message.

        A worker in standby drains: without a daemon it would never serve.
        """
        self._context.loop.remove(self._link.sock.fileno())
        reconnector, lives_on = self._reconnector, isinstance(exc, EOFError) and not self._dismissed
        if reconnector is not None:
            reconnector.lost(now)
        if reconnector is None or not lives_on or not (self._acceptor.opened or self._drain.begun):
            self._context.log.warning(f"the link to the daemon ended ({exc or 'end of file'}); draining")
            self._drain.begin(now, self._settings.drain_timeout, leaving=True)
            return
        if not reconnector.alone and not self._drain.begun:
            seconds = self._settings.orphan_timeout
            self._context.log.warning(f"the daemon has died; serving on for {seconds:g} s, for a new one to come")
        reconnector.begin(now)

    def _new_link(self, sock: socket.socket) -> None:
        """Takes a link to a process that answers the worker's calls, and that will send `Introduce` and `Adopted`."""
        self._link.renew(sock)
        self._context.loop.add(sock.fileno(), EPOLLIN, self._on_link)

    def _unfound(self, now: float) -> None:
        self._context.log.warning(f"no new daemon came within {self._settings.orphan_timeout:g} s; draining")
        self._drain.begin(now, self._settings.drain_timeout, leaving=True)
