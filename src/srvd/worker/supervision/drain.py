"""How a worker leaves: it finishes the requests under way, within a time; and SIGTERM, which asks it to.

Decides neither when nor why: `commands.py` does. Each connection decides what it does when its deadline passes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from select import EPOLLIN

from srvd.linux.processes import dispositions
from srvd.worker.context import WorkerContext
from srvd.worker.loop import NEVER, Loop
from srvd.worker.net.acceptor import Acceptor
from srvd.worker.net.phase import Phase

__all__ = ["Drain", "TermSignal"]

# When the whole server stops: seconds for a client between two requests, and for one that has not sent its first.
_LAST_IDLE = 1.0
_LAST_FIRST = 2.0
# And for a client that has its answer and does not close: the kernel sends buffered bytes after the close, too.
_LAST_LINGER = 0.5
# Seconds between two checks of a worker replaced because of a hanging call: whether only such calls are left.
_LOOK = 0.5


class Drain:
    """The drain of a worker, which `begin` begins. It stops the loop when no connection is left to wait for."""

    def __init__(self, context: WorkerContext, acceptor: Acceptor) -> None:
        self._context = context
        self._acceptor = acceptor
        self._until = NEVER
        self._late = 0.0  # do not wait for calls without output for so many seconds; 0.0: wait for all calls
        self.begun = False
        self.deadline = NEVER
        context.connections.on_left = self._left
        context.loop.watch(self)

    def leave_late(self, seconds: float) -> None:
        """Does not wait for calls that have had no output for `seconds`; 0.0: waits for all calls."""
        self._late = seconds

    def begin(self, now: float, seconds: float, *, leaving: bool, left_over: Sequence[int] = ()) -> None:
        """Finishes the open requests, within `seconds`. Called again, it can only shorten the time.

        leaving: the whole server stops, so clients in the backlog are accepted, but for listeners at the positions
        `left_over`.
        """
        context = self._context
        self.begun = context.closing = True
        self._until = min(self._until, now + seconds - min(context.last_seconds, seconds / 4))
        self.deadline = min(self._until, now + _LOOK) if self._late else self._until
        context.loop.due_at(self.deadline)
        context.leave(now, self._until)
        if leaving:
            self._leave(now, left_over)
        else:
            self._acceptor.shut(now, stuck=bool(self._late))
        self._left(now)

    def expire(self, now: float) -> None:
        """Closes all connections at the end of the drain; before it, checks whether only late calls are left."""
        if now < self._until:
            self.deadline = min(self._until, now + _LOOK)
            self._left(now)
            return
        self.deadline = NEVER
        context = self._context
        open_now = len(context.connections.all)
        context.log.warning(f"draining took too long: closing {open_now} connection{'s' * (open_now != 1)}")
        self._acceptor.give_up()
        for connection in tuple(context.connections.all):
            connection.close(now)
        context.loop.stop()

    def _leave(self, now: float, left_over: Sequence[int]) -> None:
        """Accepts all clients in the backlog, and waits less for silent ones."""
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
        context = self._context
        if not self.begun or self._acceptor.emptying:
            self._acceptor.room(now)
        elif len(context.connections.all) <= (context.late_calls(now - self._late) if self._late else 0):
            context.loop.stop()


class TermSignal:
    """Calls `on_term`, with the time, after SIGTERM has come. The thread that turns the loop may be in a call then."""

    def __init__(self, loop: Loop, on_term: Callable[[float], None]) -> None:
        self._on_term = on_term
        self._pid = os.getpid()
        self._came = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.add(self._came, EPOLLIN, self._tell)
        signal.signal(signal.SIGTERM, self._take)
        # Ctrl-C in a terminal signals the whole process group; the daemon decides what follows. Not SIG_IGN, which
        # programs started by the application would inherit.
        signal.signal(signal.SIGINT, _no_matter)
        dispositions.claim()

    def _take(self, number: int, frame: object) -> None:
        if os.getpid() != self._pid:
            # A child that the application forked, for example by multiprocessing: the signal ends it, as by default.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        os.eventfd_write(self._came, 1)

    def _tell(self, mask: int, now: float) -> None:
        os.eventfd_read(self._came)
        self._on_term(now)


def _no_matter(number: int, frame: object) -> None:
    """Does nothing: the daemon gets the signal, too, and decides."""
