"""A connection whose requests are answered by tasks of asyncio.

Reads and sends while the application runs, and tells it that the client has left. Knows no message of ASGI: `http.py`
does. Every method runs on the thread of the loop.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING

from srvd.http.h1.head import Request
from srvd.http.h1.refusal import Refusal, answer
from srvd.worker.asgi.http import HttpCycle
from srvd.worker.asgi.messages.response import start_of_refusal
from srvd.worker.loop import NEVER
from srvd.worker.net.bodies.stream import LEAST_RATE
from srvd.worker.net.connection import Connection
from srvd.worker.net.errors import ReaderGone
from srvd.worker.net.phase import Phase
from srvd.worker.net.transport import READ

if TYPE_CHECKING:
    from srvd.http.h1.head import HeadReader
    from srvd.http.h1.sink import Ends
    from srvd.worker.asgi.context import AsgiContext
    from srvd.worker.net.file_span import Span
    from srvd.worker.net.responder import Body
    from srvd.worker.net.transport import Transport

__all__ = ["HttpConnection"]

_IDLE, _QUEUED, _CALLING = Phase.IDLE, Phase.QUEUED, Phase.CALLING
_MOST_KEPT = 65_536
"""Bytes of a body that the application has not taken, or the client: then reading stops, or the application waits."""
_MOST_PARTS = 16
"""Parts of a response, among them files, that wait for the client; then the application waits."""
_PATIENCE = 3.0
"""Seconds for the application to end by itself after its client has left, with `cancel_on_disconnect`."""
_UNWANTED = 65_536
"""Bytes of a body that are read and dropped after the response, if they have arrived already."""


class HttpConnection(Connection):
    """In the phase CALLING the application runs, and `_cycle` is its request; the socket stays in the loop."""

    __slots__ = ("_asked", "_cycle", "_ended", "_mask", "_waited")

    _context: AsgiContext

    def __init__(self, context: AsgiContext, sock: Transport, ends: Ends, now: float, heads: HeadReader) -> None:
        super().__init__(context, sock, ends, now, heads)
        self._cycle: HttpCycle | None = None
        self._mask = EPOLLIN  # what the loop waits for in the phase CALLING
        self._waited = 0.0  # seconds for which it has waited for the body before that
        self._asked = 0.0  # since when the application has waited for more of the body
        self._ended = False  # the client has ended its sending

    def on_ready(self, mask: int, now: float) -> None:
        if self.phase is not _CALLING:
            super().on_ready(mask, now)
            return
        try:
            if mask & EPOLLOUT and self._delivery.queue.items:
                self._flush(now)
            if mask & ~EPOLLOUT and self.phase is _CALLING:
                self._hear(mask, now)
        except Exception as exc:  # the connection ends here; the worker and its other clients live on
            self._fail(exc, now)

    def expire(self, now: float) -> None:
        if self.phase is not _CALLING:
            super().expire(now)
            return
        due, cycle = self._due(), self._cycle
        if due > now:
            if cycle is not None and self._waits_for_client():
                cycle.gave = now  # the application is not late: its client is slow
                self._context.cycles.gave(cycle)
            longest = NEVER if cycle is None or cycle.is_event_stream else now + self._context.request_timeout
            self._set_deadline(min(due, longest))
        elif self._delivery.queue.items:
            self.reset(now)
        elif self._waits_for_client():
            self._stop(408, now)
        else:
            self._overdue(now)

    def close(self, now: float) -> None:
        cycle, self._cycle = self._cycle, None
        super().close(now)
        if cycle is not None:
            cycle.gone = True
            self._context.cycles.end(cycle, now)
            cycle.lose()
            self._have_left(cycle)

    # Calling

    def _stream(self, request: Request) -> Body:
        """Keeps the body in the reader: `_serve` gives it to the application."""
        return None

    def _serve(self, request: Request, now: float) -> bool:
        """Begins the task of the application. Returns False: the next request waits for the end of this one."""
        context = self._context
        if context.closing:
            request.keep_alive = False
        if context.max_in_flight and context.cycles.in_flight >= context.max_in_flight:
            raise Refusal(503, "too many requests are under way (max_in_flight)")
        cycle = self._make_cycle(request, now)
        if self._inbound.body is not None:
            cycle.expect_body()
            self._waited = 0.0
            self._feed(cycle, b"", now)
        elif self._inbound.rest:
            self._want(0)
        self._cycle = cycle
        self.phase = _CALLING
        context.cycles.begin(cycle)
        self._set_deadline(now + context.request_timeout)
        cycle.begin()
        return False

    def _make_cycle(self, request: Request, now: float) -> HttpCycle:
        """Raises `Refusal` for an opening handshake that is wrong."""
        return HttpCycle(self._context.convention.application, request, self, now)

    def _hear(self, mask: int, now: float) -> None:
        """Reads while the application runs: more of the body, the next request, or the end of the connection."""
        cycle, inbound = self._cycle, self._inbound
        assert cycle is not None
        try:
            data = self._sock.recv(READ) if self._mask & EPOLLIN else b""
        except BlockingIOError:
            return
        except OSError:
            self.close(now)
            return
        if data and inbound.body is not None:
            try:
                self._feed(cycle, data, now)
            except Refusal as refusal:
                self._stop(refusal.status, now)
        elif data:
            inbound.rest += data
            self._want(self._mask & ~EPOLLIN)
        elif mask & (EPOLLERR | EPOLLHUP):
            self.close(now)
        elif self._mask & EPOLLIN:
            # A client that only ended its own sending may still read (RFC 9112 section 9.6).
            self._want(self._mask & ~EPOLLIN)
            self._ended = True
            if inbound.body is not None:
                self._stop(400, now)
            else:
                cycle.leave()
                self._have_left(cycle)

    def _feed(self, cycle: HttpCycle, data: bytes, now: float) -> None:
        """Gives a part of the body to the application."""
        inbound = self._inbound
        body = inbound.body
        assert body is not None
        pieces = inbound.read_body(data)
        if body.complete:
            inbound.end_body()
        if cycle.waits_for_body:
            self._waited += now - self._asked
        self._asked = now
        cycle.feed(pieces, more=not body.complete)
        if cycle.unread > _MOST_KEPT or (body.complete and inbound.rest):
            self._want(self._mask & ~EPOLLIN)

    # For the application: `Wire`

    def want_body(self, cycle: HttpCycle) -> None:
        if cycle is not self._cycle or self._inbound.body is None:
            return
        now = self._asked = time.monotonic()
        if cycle.request.expects:
            cycle.request.expects = False
            cycle.proceed()
        if cycle is not self._cycle:  # the client was gone
            return
        if not self._ended:
            self._want(self._mask | EPOLLIN)
        self._hasten(now + self._context.times.body)

    def send(self, cycle: HttpCycle, data: bytes) -> bool:
        if cycle is not self._cycle:
            raise ReaderGone("the client is gone")
        if cycle.endless and not self._delivery.armed:
            self._delivery.arm()
        queue = self._delivery.queue
        try:
            sent = 0 if queue.items or not data else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(time.monotonic())
            raise ReaderGone("the client is gone") from None
        if not cycle.ended:
            self._context.cycles.gave(cycle)
        if sent == len(data):
            return True
        queue.add(memoryview(data)[sent:], bounded=False)
        self._want(self._mask | EPOLLOUT)
        self._hasten(queue.since + self._context.times.send)
        return queue.held <= _MOST_KEPT

    def send_file(self, cycle: HttpCycle, before: bytes, span: Span, after: bytes) -> bool:
        queue = self._delivery.queue
        try:
            self.send(cycle, before)
        except ReaderGone:
            os.close(span.fd)
            raise
        queue.add_file(span)
        if after:
            queue.add(after, bounded=False)
        self._flush(time.monotonic())
        if cycle.gone:
            raise ReaderGone("the client is gone")
        if queue.items:
            self._want(self._mask | EPOLLOUT)
            self._hasten(queue.since + self._context.times.send)
        return self.has_room()

    def has_room(self) -> bool:
        queue = self._delivery.queue
        return queue.held <= _MOST_KEPT and len(queue.items) < _MOST_PARTS

    def streams(self, cycle: HttpCycle) -> None:
        if cycle is self._cycle:
            self._context.cycles.stream(cycle)

    def over(self, cycle: HttpCycle) -> None:
        if cycle is not self._cycle:
            return
        now = time.monotonic()
        self._cycle = None
        self._context.cycles.end(cycle, now)
        try:
            self._settle(cycle, now)
        except Exception as exc:  # as in on_ready
            self._fail(exc, now)

    def done(self, cycle: HttpCycle) -> None:
        self._context.cycles.tasks.discard(cycle)

    # Ending

    def _settle(self, cycle: HttpCycle, now: float) -> None:
        """Goes on after the end of a response, of which bytes may still wait for the client."""
        if self._inbound.body is not None and not self._finish_body(cycle.request):
            cycle.keep_alive = False
        self._want(EPOLLIN)
        queue = self._delivery.queue
        if queue.items or queue.broken:
            self._await_reader(cycle, now)
        elif self._finish(cycle, now) and self._inbound.begun:
            # Later: this is a call of the application.
            self.phase = _QUEUED
            self._context.loop.later(self._take_more)

    def _finish_body(self, request: Request) -> bool:
        """Drops the rest of the body that has arrived already. Returns True if nothing more of it will come."""
        inbound, dropped = self._inbound, 0
        with suppress(Refusal, OSError):  # BlockingIOError: the rest has not arrived
            while (body := inbound.body) is not None and not request.expects and not self._ended:
                dropped += sum(map(len, inbound.read_body(b"")))
                if not body.complete and dropped < _UNWANTED and (data := self._sock.recv(READ)):
                    dropped += sum(map(len, inbound.read_body(data)))
                elif not body.complete:
                    return False
                if body.complete:
                    inbound.end_body()
        return inbound.body is None

    def _flush(self, now: float) -> None:
        """Sends more of the response, after the client has taken bytes."""
        cycle, queue = self._cycle, self._delivery.queue
        assert cycle is not None
        try:
            taken = queue.flush(self._sock)
        except EOFError:
            self._context.log.error(f"{cycle.request.label}: the file became shorter while it was sent")
            self.close(now)
            return
        except OSError:
            self.close(now)
            return
        if taken:
            cycle.gave = now
            self._context.cycles.gave(cycle)
        if not queue.items:
            self._want(self._mask & ~EPOLLOUT)
            self._hasten(self._due())
        if self.has_room():
            cycle.wake()

    def _stop(self, status: int, now: float) -> None:
        """Answers in the place of the application, for which the client is gone from now on. A response that has begun
        is cut.
        """
        cycle, self._cycle = self._cycle, None
        assert cycle is not None
        self._want(EPOLLIN)
        if not cycle.opened:
            data = answer(status, self._context.stamp(), bodiless=cycle.request.method == "HEAD")
            self._delivery.say(data)
            cycle.sent += len(data)
        cycle.cut()
        cycle.refuse(start_of_refusal(status))
        self._context.cycles.end(cycle, now)
        if cycle.must_reset:
            self.reset(now)
        else:
            self._linger(now)

    def _have_left(self, cycle: HttpCycle) -> None:
        """The client has ended its sending, or is gone."""
        if self._context.cancels and not cycle.ended:
            self._context.loop.asyncio.call_later(_PATIENCE, self._give_up, cycle)

    def _give_up(self, cycle: HttpCycle) -> None:
        """Cancels the task of a client that has left, if it has not ended the response meanwhile."""
        if not cycle.ended:
            if cycle is self._cycle:
                self.close(time.monotonic())
            cycle.cancel()

    def _overdue(self, now: float) -> None:
        """Ends a request whose application has given nothing for too long."""
        cycle = self._cycle
        assert cycle is not None
        self._context.log.error(
            f"{cycle.request.label}: nothing came of the application for {now - cycle.gave:.1f} s (request_timeout); "
            f"{'the response is cut' if cycle.opened else 'it is answered with 504'}, and the task is cancelled"
        )
        self._stop(504, now)
        cycle.cancel()

    # Times

    def _waits_for_client(self) -> bool:
        """Whether the application waits for more of the body, or for the client to take more of the response."""
        cycle = self._cycle
        if cycle is None:
            return False
        return bool(self._delivery.queue.items) or (cycle.waits_for_body and self._inbound.body is not None)

    def _due(self) -> float:
        """Returns when the time of the client, or of the application, is over."""
        cycle, queue, context = self._cycle, self._delivery.queue, self._context
        if cycle is None:
            return NEVER
        if queue.items:
            return queue.since + context.times.send
        body = self._inbound.body
        if body is not None and cycle.waits_for_body:
            limit = context.times.body
            return self._asked + max(min(limit, limit + body.received / LEAST_RATE - self._waited), 0.0)
        return NEVER if cycle.is_event_stream else cycle.gave + context.request_timeout

    def _hasten(self, deadline: float) -> None:
        if deadline < self.deadline:
            self._set_deadline(deadline)

    def _want(self, mask: int) -> None:
        """Waits for these events from now on."""
        if mask != self._mask:
            self._mask = mask
            self._context.loop.want(self._fd, mask)
