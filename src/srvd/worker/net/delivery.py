"""Calls the application and sends its response, from the call to close(); queues the bytes that the socket does not
take.

`answer` returns only after the application has ended its response. So between two blocks of a response the thread runs
no other request, and the context is the request's own (docs/explain/requests.md). Knows no loop and no phases; the
caller sends the bytes left in the send queue.
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

# The most seconds between two reports of a thread that waits for a client, so that its call is not taken for hanging.
_SIGN_OF_LIFE = 0.25


class Delivery:
    """The delivery of one connection. `answer`, and the methods it calls, run on the thread of the call, which has the
    connection at that time.
    """

    __slots__ = ("_context", "_recorder", "_responder", "_sending", "_sent", "_sock", "armed", "queue")

    def __init__(self, context: WorkerContext, sock: Transport) -> None:
        self._context = context
        self._sock = sock
        self._responder: Responder | None = None
        self._recorder = context.recorder  # of the thread of the call
        self._sending: Sending | None = None  # while the sender empties the queue
        self._sent = 0  # bytes of this response that were sent or queued
        self.queue = SendQueue(context.budget)
        self.armed = False
        """Whether the close of the socket would be a reset."""

    def answer(self, responder: Responder, recorder: Recorder, since: float) -> float:
        """Calls the application for the request, which came at `since`; returns the time at the end."""
        self._responder = responder
        self._recorder = recorder
        self._sent = 0
        queue = self.queue
        try:
            data = responder.start()
            if (
                responder.ended
                and not queue.items
                and not queue.broken
                and (responder.keep_alive or not responder.endless)
            ):
                # Nearly always: the whole response at once. The code below has the same result.
                self._sent += len(data)
                try:
                    sent = self._sock.send(data)
                except BlockingIOError:
                    self._give(data)
                except OSError:
                    queue.broken = True
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
            recorder.end(now, responder, self._sent, since)
        return now

    def push(self, responder: Responder, data: bytes) -> None:
        """Sends bytes of write() (PEP 3333), or an interim response. Raises `ReaderGone`."""
        if responder is not self._responder:
            raise ReaderGone
        if responder.endless and not self.armed:
            self.arm()
        if not self._give(data):
            raise ReaderGone
        self._sent += len(data)
        self._recorder.gave(time.monotonic())
        if self.queue.items and self._sending is None:
            self._sending = self._context.sender.begin(self._sock, self.queue)

    def say(self, data: bytes) -> None:
        """Sends bytes of the server itself, while no application answers."""
        try:
            sent = 0 if self.queue.items else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:  # the next read or write raises again
            return
        if sent != len(data):
            self.queue.add(memoryview(data)[sent:], bounded=False)

    def disarm(self) -> None:
        """Makes the close an ordinary one again, after a complete response."""
        self.armed = False
        with suppress(OSError):  # it is gone already
            calm(self._sock)

    def _take_all(self, responder: Responder, data: bytes) -> None:
        queue = self.queue
        while True:
            if data:
                self._sent += len(data)
                if responder.endless and not self.armed:
                    self.arm()
                if not self._give(data):
                    return
            if responder.ended:
                return
            if responder.span is not None:
                self._give_file(responder)
            elif queue.items and self._sending is None:
                # PEP 3333, "Buffering and Streaming": a block must not wait for the next one.
                self._sending = self._context.sender.begin(self._sock, queue)
            data = responder.more()
            if data:
                self._recorder.gave(time.monotonic())
            elif not responder.ended and self._hung_up():
                return

    def _give(self, data: bytes | memoryview) -> bool:
        """Sends or queues bytes. Returns False if the client is gone, or takes nothing."""
        sending = self._sending
        if sending is None:
            rest = self._put(data)
        else:
            with sending.lock:
                rest = self._put(data)
                if self.queue.items:
                    self._context.sender.again(sending)
        if rest is not None:
            self._await_room(rest)
        return not self.queue.broken

    def _put(self, data: bytes | memoryview) -> memoryview | None:
        """Sends or queues bytes, and returns the part without a place; None if there is none."""
        queue = self.queue
        if queue.broken:
            return None
        try:
            if queue.items:
                queue.flush(self._sock)
                if queue.items and time.monotonic() - queue.since > self._context.times.send:
                    queue.broken = True
                    return None
            sent = 0 if queue.items else self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except (OSError, EOFError):
            queue.broken = True
            return None
        return None if sent == len(data) else queue.add(memoryview(data)[sent:] if sent else data)

    def _give_file(self, responder: Responder) -> None:
        """Sends as much of the file as the socket takes; the rest is sent after the application's end."""
        if self._sending is not None:  # of an interim response
            self._stop_sending()
        span, responder.span = responder.span, None
        assert span is not None
        queue = self.queue
        queue.add_file(span)
        self._sent += span.length
        try:
            queue.flush(self._sock)
        except (OSError, EOFError) as exc:
            queue.broken = True
            if isinstance(exc, EOFError):
                self._context.log.error(f"{responder.request.label}: the file became shorter while it was sent")

    def _await_room(self, rest: memoryview | None) -> None:
        """Waits for the client, because no more bytes may be queued. This does not count as the application's time."""
        if self._sending is not None:
            self._stop_sending()
        queue, limit = self.queue, self._context.times.send
        queue.since = time.monotonic()
        waiting = self._context.make_poll()
        waiting.register(self._sock.fileno(), POLLOUT)
        while rest is not None and not queue.broken:
            ready = waiting.poll(min(limit, _SIGN_OF_LIFE) * 1000)
            now = time.monotonic()
            self._recorder.gave(now)
            if ready:
                queue.since = now
                rest = self._put(rest)
            elif now - queue.since >= limit:
                queue.broken = True

    def _stop_sending(self) -> None:
        sending, self._sending = self._sending, None
        assert sending is not None
        self._context.sender.end(sending)

    def _hung_up(self) -> bool:
        """Tells whether the client has reset the connection, without sending a byte. A client that only ended its own
        sending may still read (RFC 9112 section 9.6).
        """
        looking = poll()
        looking.register(self._sock.fileno(), 0)
        return any(mask & (POLLERR | POLLHUP) for _, mask in looking.poll(0))

    def arm(self) -> None:
        """Makes the close a reset, for a response that ends with its connection: if the worker is killed before the
        end, the client sees that the response is incomplete.
        """
        self.armed = True
        abort(self._sock)
