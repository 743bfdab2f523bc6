"""Takes a response from its application, from the call to close(), and gives the socket what it takes; the outbox keeps
the rest.

The application is never left in the middle of a response: `answer` does not return before it is through with it. So
between two blocks its thread runs nothing of another request, and its context is its own (docs/explain/requests.md).
Knows no loop and no phases; what is in the outbox in the end is sent by whoever called.
"""

from __future__ import annotations

import time
from contextlib import suppress
from select import POLLERR, POLLHUP, POLLOUT, poll
from typing import TYPE_CHECKING

from srvd.worker.context import WorkerContext
from srvd.worker.net.errors import ReaderGone
from srvd.worker.net.responder import Responder
from srvd.worker.net.send_queue import SendQueue
from srvd.worker.net.transport import Transport, abort, calm

if TYPE_CHECKING:
    from srvd.worker.net.sender import Sending
    from srvd.worker.observe.recorder import Recorder

__all__ = ["Delivery"]

# While a thread waits for a reader it says so at least this often, in seconds: that it is no call that hangs.
_SIGN_OF_LIFE = 0.25


class Delivery:
    """One connection's. `answer` and what it calls run on the thread of the call, which has the connection then."""

    __slots__ = ("_meter", "_responder", "_sending", "_service", "_sock", "armed", "outbox")

    def __init__(self, service: WorkerContext, sock: Transport) -> None:
        self._service = service
        self._sock = sock
        self._responder: Responder | None = None
        self._meter = service.meter  # of the thread of the call
        self._sending: Sending | None = None  # the sender empties the outbox meanwhile
        self.outbox = SendQueue(service.budget, service.most_kept)
        self.armed = False
        """The close of the socket would be a reset."""

    def answer(self, responder: Responder, meter: Recorder, since: float) -> float:
        """Has the application answer the request, which came at `since`; the time then."""
        self._responder = responder
        self._meter = meter
        outbox = self.outbox
        try:
            data = responder.start()
            if responder.ended and responder.keep_alive and not outbox.items and not outbox.broken:
                # Nearly always: all of the response at once. What follows comes to the same.
                responder.sent += len(data)
                try:
                    sent = self._sock.send(data)
                except BlockingIOError:
                    self._give(data)
                except OSError:
                    outbox.broken = True
                else:
                    if sent != len(data):
                        self._give(memoryview(data)[sent:])
            else:
                self._take_all(responder, data)
        finally:
            self._responder = None
            if self._sending is not None:
                self._stop_sending()
            if not responder.ended:
                responder.abandon()
            now = time.monotonic()
            meter.end(now, responder, since)
        return now

    def push(self, responder: Responder, data: bytes) -> None:
        """What write() of PEP 3333 gives, or an interim response. Raises `ReaderGone`."""
        if responder is not self._responder:
            raise ReaderGone
        if responder.endless and not self.armed:
            self._arm()
        if not self._give(data):
            raise ReaderGone
        responder.sent += len(data)
        self._meter.gave(time.monotonic())
        if self.outbox.items and self._sending is None:
            self._sending = self._service.sender.begin(self._sock, self.outbox)

    def say(self, data: bytes) -> None:
        """What the server says by itself, while no application answers."""
        try:
            sent = 0 if self.outbox.items else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # whoever reads or writes next is told
            return
        if sent != len(data):
            self.outbox.add(memoryview(data)[sent:], bounded=False)

    def disarm(self) -> None:
        """The response has ended as it should."""
        self.armed = False
        with suppress(OSError):  # it is gone already
            calm(self._sock)

    def _take_all(self, responder: Responder, data: bytes) -> None:
        outbox = self.outbox
        while True:
            if data:
                responder.sent += len(data)
                if responder.endless and not self.armed:
                    self._arm()
                if not self._give(data):
                    return
            if responder.ended:
                return
            if responder.span is not None:
                self._give_file(responder)
            elif outbox.items and self._sending is None:
                # PEP 3333, "Buffering and Streaming": what was given must not wait for what comes next.
                self._sending = self._service.sender.begin(self._sock, outbox)
            data = responder.more()
            if data:
                self._meter.gave(time.monotonic())
            elif not responder.ended and self._hung_up():
                return

    def _give(self, data: bytes | memoryview) -> bool:
        """Sends it, or keeps it for the reader; False: the reader is gone, or takes nothing."""
        sending = self._sending
        if sending is None:
            rest = self._put(data)
        else:
            with sending.lock:
                rest = self._put(data)
                if self.outbox.items:
                    self._service.sender.again(sending)
        if rest is not None:
            self._await_room(rest)
        return not self.outbox.broken

    def _put(self, data: bytes | memoryview) -> memoryview | None:
        """What has no place is returned."""
        outbox = self.outbox
        if outbox.broken:
            return None
        try:
            if outbox.items:
                outbox.flush(self._sock)
                if outbox.items and time.monotonic() - outbox.since > self._service.times.send:
                    outbox.broken = True
                    return None
            sent = 0 if outbox.items else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except (OSError, EOFError):
            outbox.broken = True
            return None
        return None if sent == len(data) else outbox.add(memoryview(data)[sent:] if sent else data)

    def _give_file(self, responder: Responder) -> None:
        """As far as the socket takes it; the rest goes when the application is through."""
        if self._sending is not None:  # of an interim response
            self._stop_sending()
        span, responder.span = responder.span, None
        assert span is not None
        outbox = self.outbox
        outbox.add_file(span)
        responder.sent += span.length
        try:
            outbox.flush(self._sock)
        except (OSError, EOFError) as exc:
            outbox.broken = True
            if isinstance(exc, EOFError):
                self._service.log.error(f"{responder.request.label}: the file became shorter while it was sent")

    def _await_room(self, rest: memoryview | None) -> None:
        """No more may be kept: the thread waits for the reader, which is not the application's time."""
        if self._sending is not None:
            self._stop_sending()
        outbox, limit = self.outbox, self._service.times.send
        outbox.since = time.monotonic()
        waiting = poll()
        waiting.register(self._sock.fileno(), POLLOUT)
        while rest is not None and not outbox.broken:
            ready = waiting.poll(min(limit, _SIGN_OF_LIFE) * 1000)
            now = time.monotonic()
            self._meter.gave(now)
            if ready:
                outbox.since = now
                rest = self._put(rest)
            elif now - outbox.since >= limit:
                outbox.broken = True

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        assert sending is not None
        self._service.sender.end(sending)

    def _hung_up(self) -> bool:
        """Whether the reader has reset, seen without sending anything. A mere end of what it sends means nothing: it
        may still read (RFC 9112 section 9.6).
        """
        looking = poll()
        looking.register(self._sock.fileno(), 0)
        return any(mask & (POLLERR | POLLHUP) for _, mask in looking.poll(0))

    def _arm(self) -> None:
        """The response ends with its connection. If the worker is killed before, the kernel resets it, and the client
        sees that it is not whole.
        """
        self.armed = True
        abort(self._sock)
