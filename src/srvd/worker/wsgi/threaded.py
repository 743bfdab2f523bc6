"""Loop, context and connection of a worker in which several threads serve (see `scheduler.py`).

Starts no thread, and does not decide which thread turns the loop.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from select import EPOLLIN
from threading import get_ident
from typing import TYPE_CHECKING

from srvd.http.h1.head import Request
from srvd.worker.context import WorkerContext
from srvd.worker.loop import Loop
from srvd.worker.net.bodies.stream import BodyStream
from srvd.worker.net.connection import Connection
from srvd.worker.net.delivery import Delivery
from srvd.worker.net.phase import Phase
from srvd.worker.tracebacks import blame, format_traceback

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.http.h1.head import HeadReader
    from srvd.http.h1.sink import Ends
    from srvd.log import Log
    from srvd.worker.net.responder import CallConvention
    from srvd.worker.net.transport import Transport
    from srvd.worker.observe.recorder import Recorder

__all__ = ["ThreadedConnection", "ThreadedContext", "ThreadedLoop"]

_answer = Delivery.answer  # as in connection.py
_IDLE, _ANSWERING, _CALLING = Phase.IDLE, Phase.ANSWERING, Phase.CALLING
# The least seconds until the next deadline of a connection in a call, for which no time limit holds.
_LEAST_IDLE = 1.0
# All threads are in calls, and no call has begun for so many seconds: a new request may wait for ever.
_STUCK = 0.5
# The most seconds for which new connections are left to other workers. The end of a long call ends that early; the end
# of a quick call does not, because there may be many.
_BREATH = 0.05
_LONG_BREATH = 1.0


class ThreadedLoop(Loop):
    """A loop turned by one thread at a time, its owner. Other threads may only call `post` and `due_at`."""

    def __init__(self) -> None:
        super().__init__()
        self._posts: deque[Callable[[float], None]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rung = False
        self.owner = 0
        """threading.get_ident() of the thread that turns the loop now; 0 while none does."""
        self.add(self._bell, EPOLLIN, self._on_bell)

    def stopped(self) -> bool:
        return not self._running

    def post(self, call: Callable[[float], None]) -> None:
        """Makes the loop's owner call `call`, soon."""
        self._posts.append(call)
        # This order, and the opposite one in `_on_bell`: if the bell is rung already, its handler will see this post.
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def due_at(self, deadline: float) -> None:
        if deadline < self.due:
            if get_ident() == self.owner:
                self.due = deadline
            else:  # the owner may be waiting for a later deadline
                self.post(lambda now: self.due_at(deadline))

    def mute(self, fd: int) -> None:
        """Stops all events of a descriptor, until `want`. Takes it out of epoll, which always reports a hang-up."""
        if fd not in self.muted:
            self._epoll.unregister(fd)
            self.muted.add(fd)

    def _on_bell(self, mask: int, now: float) -> None:
        os.eventfd_read(self._bell)
        self._rung = False
        for _ in range(len(self._posts)):
            self._posts.popleft()(now)


class ThreadedContext(WorkerContext):
    """The context of a worker with several threads, and the calls that wait for a thread: at most one for each
    connection.
    """

    loop: ThreadedLoop

    def __init__(
        self,
        convention: CallConvention,
        settings: PoolSettings,
        loop: ThreadedLoop,
        recorder: Recorder,
        log: Log,
        stamp: Callable[[], bytes],
        recorders: list[Recorder],
    ) -> None:
        super().__init__(convention, settings, loop, recorder, log, stamp)
        self.calls: deque[ThreadedConnection] = deque()
        self.free_recorders = recorders
        """Recorders that no call uses. A call takes one and gives it back, so their number limits the calls at a time.
        Each writes to a lane of the scoreboard."""
        self._all_recorders = tuple(recorders)
        self._on_free: Callable[[float], None] | None = None

    def swamped(self, now: float, on_free: Callable[[float], None]) -> float:
        if self.free_recorders:
            return 0.0
        # While calls come and go, a few waiting ones keep threads busy. If no call has begun for long, all may hang.
        stuck = now - max(recorder.began for recorder in self._all_recorders) >= _STUCK
        if not stuck and len(self.calls) < len(self._all_recorders):
            return 0.0
        self._on_free = on_free
        if self.free_recorders:  # a recorder was given back before `_on_free` was set
            self._on_free = None
            return 0.0
        return _LONG_BREATH if stuck else _BREATH

    def late_calls(self, since: float) -> int:
        return sum(recorder.began > 0.0 and recorder.last_gave <= since for recorder in self._all_recorders)

    def recorder_is_free(self) -> None:
        """Called by a thread that has given a recorder back after a long call: ends the pause of the acceptor."""
        on_free, self._on_free = self._on_free, None
        if on_free is not None:
            self.loop.post(on_free)


class ThreadedConnection(Connection):
    """A connection whose requests are answered by any of several threads.

    In the phase CALLING the connection belongs to its call, which waits in `calls` or runs in a thread: only that
    thread uses the connection and its socket. In all other phases the connection belongs to the loop's owner.
    """

    __slots__ = ("_since",)

    _context: ThreadedContext

    def __init__(self, context: WorkerContext, sock: Transport, ends: Ends, now: float, heads: HeadReader) -> None:
        super().__init__(context, sock, ends, now, heads)
        self._since = now  # when the request came

    def expire(self, now: float) -> None:
        if self.phase is _CALLING:
            # Nearly the deadline that `hand_back` sets: if both threads set it now, either result is right.
            self._set_deadline(now + max(self._context.times.idle, _LEAST_IDLE))
        else:
            super().expire(now)

    def close(self, now: float) -> None:
        # In CALLING only the end of a drain comes here: the process ends next, and the call with it.
        if self.phase is not _CALLING:
            super().close(now)

    # The loop's owner

    def _serve(self, request: Request, now: float) -> bool:
        """Queues the call of the application. Returns False: the next request waits for the end of this one."""
        self._since = now
        context = self._context
        if context.closing:
            request.keep_alive = False
        self._responder = context.convention.responder(request, self._body, self._delivery.push)
        self.phase = _CALLING
        context.calls.append(self)
        return False

    def _mute(self) -> None:
        """Mutes the socket: further requests, or the end of the connection, must wait."""
        loop = self._context.loop
        loop.mute(self._fd)
        if self.phase is not _CALLING:  # handed back just now, perhaps by a thread that saw it unmuted
            self._take_back(0.0)

    def _take_back(self, now: float) -> None:
        """Takes back a connection that was handed back while it was muted or the worker drains, unless its phase has
        changed since then.
        """
        if self.phase is _IDLE:
            if self._fd in self._context.loop.muted:
                self._context.loop.want(self._fd, EPOLLIN)
            self.hurry(time.monotonic() + self._context.times.idle)

    def settle(self, now: float) -> None:
        """Takes the connection back into the loop after the end of its call. Only for the thread that owns the loop."""
        responder = self._responder
        assert responder is not None
        try:
            queue = self._delivery.queue
            if queue.items or queue.broken:
                self.phase = _IDLE
                self._await_reader(responder, now)
            else:
                # ANSWERING: then `_finish` calls `want`, which puts the descriptor back into epoll.
                self.phase = _ANSWERING if self._fd in self._context.loop.muted else _IDLE
                if self._finish(responder, now) and self._inbound.begun:
                    self._take(b"", now)
        except Exception as exc:  # the connection ends here, as in on_ready
            self._fail(exc, now)

    # The thread of the call

    def work(self, recorder: Recorder, now: float) -> float:
        """Calls the application, and returns the time at the end. The caller must call `settle` or `hand_back` next."""
        responder, context = self._responder, self._context
        assert responder is not None
        recorder.begin(now, responder.request.line)
        try:
            return context.convention.variables.copy().run(_answer, self._delivery, responder, recorder, self._since)
        except Exception as exc:  # the connection ends here; the thread lives on
            context.log.error(f"{blame(exc)}; {self!r} is closed\n{format_traceback(exc)}")
            self._delivery.queue.broken = True
            return time.monotonic()

    def hand_back(self, now: float) -> None:
        """Gives the connection back after its call, while another thread has the loop. Mostly that thread need not wake
        up: the descriptor still is in epoll, and the deadline is later than others of the loop.
        """
        responder, context, fd, queue = self._responder, self._context, self._fd, self._delivery.queue
        if (
            responder is None
            or queue.broken
            or queue.items
            or not responder.keep_alive
            or self._inbound.begun
            or isinstance(self._body, BodyStream)
        ):
            context.loop.post(self.settle)
            return
        self._responder = None
        body, self._body = self._body, None
        if body is not None:
            body.finish()
        self.served += 1
        self.deadline = deadline = now + context.times.idle
        self.phase = _IDLE
        # From here on the connection is the loop's. The loop's owner mutes, or begins to drain, before it looks at the
        # phase; this thread sets the phase before it looks. So at least one of the two threads sees the other's change.
        context.loop.due_at(deadline)
        if context.closing or fd in context.loop.muted:
            context.loop.post(self._take_back)
