"""What of the loop, the service and a connection is different when several threads serve (see `scheduler.py`).

Starts no thread, and decides nothing about who has the loop.
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
from srvd.worker.net.body_stream import BodyStream
from srvd.worker.net.connection import Connection
from srvd.worker.net.delivery import Delivery
from srvd.worker.net.phase import Phase
from srvd.worker.tracebacks import blame, format_traceback

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.http.h1.sink import Sink
    from srvd.log import Log
    from srvd.worker.app.loader import Application
    from srvd.worker.observe.recorder import Recorder

__all__ = ["CalledConnection", "SharedLoop", "SharedService"]

_answer = Delivery.answer  # as in connection.py
_IDLE, _ANSWERING, _CALLING = Phase.IDLE, Phase.ANSWERING, Phase.CALLING
# How often a connection in a call is looked at when its time is over, at most: its time does not run.
_LEAST_IDLE = 1.0
# All threads are in calls, and none of these has begun for so long: what comes now may wait for ever.
_STUCK = 0.5
# For so long, at most, new connections are left to other workers. A call that took its time ends that when it is over;
# quick ones do not, and there may be many.
_BREATH = 0.05
_LONG_BREATH = 1.0


class SharedLoop(Loop):
    """Turned by one thread at a time, its owner. All others may only call `post` and `due_at`."""

    def __init__(self) -> None:
        super().__init__()
        self._posts: deque[Callable[[float], None]] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._rung = False
        self.owner = 0
        """threading.get_ident() of the thread that turns it now; 0 while nobody does."""
        self.muted: set[int] = set()
        """Descriptors that are not waited for, until `want` is called for them; also read by other threads."""
        self.add(self._bell, EPOLLIN, self._on_bell)

    def stopped(self) -> bool:
        return not self._running

    def post(self, call: Callable[[float], None]) -> None:
        """Have it called by the loop's owner, soon."""
        self._posts.append(call)
        # In this order, and `_on_bell` in the opposite one: who finds the bell rung is heard by who comes.
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def due_at(self, deadline: float) -> None:
        if deadline < self._due:
            if get_ident() == self.owner:
                self._due = deadline
            else:  # the owner may be waiting for a later one
                self.post(lambda now: self.due_at(deadline))

    def mute(self, fd: int) -> None:
        """Not even its end is told (epoll cannot leave that out, so it does not have the descriptor meanwhile)."""
        if fd not in self.muted:
            self._epoll.unregister(fd)
            self.muted.add(fd)

    def want(self, fd: int, mask: int) -> None:
        if fd in self.muted:
            self._epoll.register(fd, mask)
            self.muted.discard(fd)
        else:
            self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        if fd in self.muted:
            self.muted.discard(fd)
            del self._handlers[fd]
        else:
            super().remove(fd)

    def _on_bell(self, mask: int, now: float) -> None:
        os.eventfd_read(self._bell)
        self._rung = False
        for _ in range(len(self._posts)):
            self._posts.popleft()(now)


class SharedService(WorkerContext):
    """With the calls that wait for a thread. There is one for each connection at most, which bounds them."""

    loop: SharedLoop

    def __init__(
        self,
        app: Application,
        settings: PoolSettings,
        loop: SharedLoop,
        meter: Recorder,
        log: Log,
        sink: Sink,
        seats: list[Recorder],
    ) -> None:
        super().__init__(app, settings, loop, meter, log, sink)
        self.connection = CalledConnection
        self.calls: deque[CalledConnection] = deque()
        self.seats = seats
        """A call takes one, and gives it back: so many calls run at a time. Each is a lane of the scoreboard."""
        self._all_seats = tuple(seats)
        self._on_seat: Callable[[float], None] | None = None

    def swamped(self, now: float, on_seat: Callable[[float], None]) -> float:
        if self.seats:
            return 0.0
        # While calls come and go, a few that wait keep the threads busy. If none has begun for long, all may be stuck.
        stuck = now - max(seat.began for seat in self._all_seats) >= _STUCK
        if not stuck and len(self.calls) < len(self._all_seats):
            return 0.0
        self._on_seat = on_seat
        if self.seats:  # given back before it was said where to tell
            self._on_seat = None
            return 0.0
        return _LONG_BREATH if stuck else _BREATH

    def late_calls(self, since: float) -> int:
        return sum(seat.began > 0.0 and seat.last_gave <= since for seat in self._all_seats)

    def seat_is_free(self) -> None:
        """Said by the thread that has given one back, after a call that took its time."""
        on_seat, self._on_seat = self._on_seat, None
        if on_seat is not None:
            self.loop.post(on_seat)


class CalledConnection(Connection):
    """While its phase is CALLING it belongs to its call, which is in `calls` or runs in some thread: that thread alone
    touches it, its socket too. In all other phases it belongs to the loop's owner.
    """

    __slots__ = ()

    _service: SharedService

    def expire(self, now: float) -> None:
        if self.phase is _CALLING:
            # Nearly what `hand_back` gives: should it do so in this moment, no harm is done, whoever is last.
            self._set_deadline(now + max(self._service.times.idle, _LEAST_IDLE))
        else:
            super().expire(now)

    def close(self, now: float) -> None:
        # Asked from outside only at the end of a drain: the process ends next, and the call with it.
        if self.phase is not _CALLING:
            super().close(now)

    # The loop's owner

    def _serve(self, request: Request, now: float) -> bool:
        """Has the application called; False: the next request waits until it has answered."""
        self._since = now
        service = self._service
        self._responder = service.responder(service, request, self._body, self._delivery.push)
        self.phase = _CALLING
        service.calls.append(self)
        return False

    def _mute(self) -> None:
        """More requests came, or the end; both have to wait."""
        loop = self._service.loop
        loop.mute(self._fd)
        if self.phase is not _CALLING:  # handed back just now, maybe by a thread that did not see it muted
            self._take_back(0.0)

    def _take_back(self, now: float) -> None:
        """It was handed back while it was muted, or while the worker drains. Anything may have happened since then."""
        if self.phase is _IDLE:
            if self._fd in self._service.loop.muted:
                self._service.loop.want(self._fd, EPOLLIN)
            self.hurry(time.monotonic() + self._service.times.idle)

    def settle(self, now: float) -> None:
        """The call is over, and the connection the loop's again."""
        responder = self._responder
        assert responder is not None
        try:
            outbox = self._delivery.outbox
            if outbox.items or outbox.broken:
                self.phase = _IDLE
                self._await_reader(responder, now)
            else:
                # ANSWERING: what follows asks the loop for the descriptor.
                self.phase = _ANSWERING if self._fd in self._service.loop.muted else _IDLE
                if self._finish(responder, now) and self._inbound.begun:
                    self._take(b"", now)
        except Exception as exc:  # the connection ends here, as in on_ready
            self._fail(exc, now)

    # The thread of the call

    def work(self, meter: Recorder, now: float) -> float:
        """Has the application answer; the time then. After it either `settle` or `hand_back` must be called."""
        responder, service = self._responder, self._service
        assert responder is not None
        meter.begin(now, responder.request.line)
        try:
            return service.context.copy().run(_answer, self._delivery, responder, meter, self._since)
        except Exception as exc:  # the connection ends here; the thread lives on
            service.log.error(f"{blame(exc)}; {self!r} is closed\n{format_traceback(exc)}")
            self._delivery.outbox.broken = True
            return time.monotonic()

    def hand_back(self, now: float) -> None:
        """The call is over, and another thread has the loop. Mostly nothing has to be done there, and it need not wake
        up: the descriptor is where it was, and the deadline is not before those that it knows of.
        """
        responder, service, fd, outbox = self._responder, self._service, self._fd, self._delivery.outbox
        if (
            responder is None
            or outbox.broken
            or outbox.items
            or not responder.keep_alive
            or self._inbound.begun
            or isinstance(self._body, BodyStream)
        ):
            service.loop.post(self.settle)
            return
        self._responder = None
        body, self._body = self._body, None
        if body is not None:
            body.finish()
        self.served += 1
        self.deadline = deadline = now + service.times.idle
        self.phase = _IDLE
        # From here on it is the loop's. Whoever mutes it or begins to drain does that first and looks at the phase
        # then: either they see the phase, or we see what they did.
        service.loop.due_at(deadline)
        if service.closing or fd in service.loop.muted:
            service.loop.post(self._take_back)
