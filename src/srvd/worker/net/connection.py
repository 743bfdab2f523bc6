"""One client's connection: its socket, received bytes, unsent bytes and deadline.

Knows no rule of HTTP (`http/` does) and no calling convention (a responder does): moves bytes between them.
"""

from __future__ import annotations

import socket
import time
from select import EPOLLIN, EPOLLOUT
from typing import NamedTuple, Protocol

from srvd.http.h1.head import HeadReader, Request
from srvd.http.h1.reader import Inbound
from srvd.http.h1.refusal import Refusal, answer
from srvd.http.h1.response import CONTINUE
from srvd.http.h1.sink import Ends
from srvd.worker.context import WorkerContext
from srvd.worker.net.bodies.spool import BodySpool
from srvd.worker.net.bodies.stream import LEAST_RATE, BodyStream
from srvd.worker.net.delivery import Delivery
from srvd.worker.net.phase import Phase
from srvd.worker.net.responder import Body, Responder
from srvd.worker.net.transport import READ, Transport, abort
from srvd.worker.tracebacks import blame, format_traceback

__all__ = ["Connection"]

# The most pipelined requests that are answered before other connections have their turn.
_BURST = 16
_LINGER_BYTES = 65_536

# For the code of every request: an attribute of an enum costs one more lookup.
_IDLE, _QUEUED, _CALLING, _ANSWERING, _LINGERING, _CLOSED = (
    Phase.IDLE, Phase.QUEUED, Phase.CALLING, Phase.ANSWERING, Phase.LINGERING, Phase.CLOSED,
)  # fmt: skip

_answer = Delivery.answer


class _Ending(NamedTuple):
    """The facts of a responder that are still needed after its application has ended the response."""

    keep_alive: bool
    must_reset: bool
    label: str


class _Answered(Protocol):
    """What a connection asks of a response that was made."""

    request: Request

    @property
    def keep_alive(self) -> bool: ...

    @property
    def must_reset(self) -> bool: ...


class Connection:
    """A connection from accept to close, in the loop of its worker."""

    __slots__ = (
        "_body",
        "_context",
        "_delivery",
        "_ending",
        "_fd",
        "_inbound",
        "_linger_left",
        "_responder",
        "_sock",
        "deadline",
        "phase",
        "served",
    )

    def __init__(self, context: WorkerContext, sock: Transport, ends: Ends, now: float, heads: HeadReader) -> None:
        self._context = context
        self._sock = sock
        self._fd = sock.fileno()
        self._inbound = Inbound(heads, heads.sink.connection(ends))
        self._delivery = Delivery(context, sock)
        self._body: Body = None  # of the request that is being read or answered
        self._responder: Responder | None = None  # while the application is called
        self._ending: _Ending | None = None  # of the response whose rest is in the send queue
        self._linger_left = _LINGER_BYTES
        self.phase = Phase.IDLE
        self.served = 0  # requests
        self.deadline = now + context.times.first
        context.connections.enter(self)
        context.loop.add_muted(self._fd, self.on_ready)
        context.loop.watch(self)

    def __repr__(self) -> str:
        return f"<Connection {self._fd} {self.phase.value} served {self.served}>"

    def greet(self, now: float) -> None:
        """Reads what has come already, then waits in the loop: a connection that is over after its first request is
        never in epoll. To be called once, after the connection was made.
        """
        if self.phase is _IDLE:  # else closed meanwhile
            self.on_ready(EPOLLIN, now)
            if self.phase is not _CLOSED and self._fd in self._context.loop.muted:
                self._context.loop.want(self._fd, EPOLLIN)

    def on_ready(self, mask: int, now: float) -> None:
        """Handles a socket that can be read, or written if the loop waits for that."""
        phase = self.phase
        try:
            if phase is _IDLE:
                self._read(now)
            elif phase is _ANSWERING:
                self._send_more(now)
            elif phase is _LINGERING:
                self._throw_away(now)
            elif phase is _CALLING:
                self._mute()
            elif phase is not _QUEUED:
                self._read(now)
        except Exception as exc:  # the connection ends here; the worker and its other clients live on
            self._fail(exc, now)

    def expire(self, now: float) -> None:
        """Answers with 408, resets or closes at the end of the phase's time."""
        if self.phase in (Phase.HEAD, Phase.BODY):
            self._refuse(Refusal(408, "the request did not come in time"), now)
        elif self.phase is _ANSWERING:
            self.reset(now)
        elif self.phase is not _QUEUED:
            self.close(now)

    def close(self, now: float) -> None:
        """Closes the connection, and drops unsent bytes. Not called during a call of the application."""
        if self.phase is _CLOSED:
            return
        self._delivery.queue.close()
        self._drop_body()
        self.phase = _CLOSED
        loop = self._context.loop
        loop.remove(self._fd)
        loop.forget(self)
        self._sock.close()
        self._context.connections.leave(self, now)

    def reset(self, now: float) -> None:
        """Closes by a reset, so that the client sees an error, and the kernel drops its buffers."""
        abort(self._sock)
        self.close(now)

    def hurry(self, deadline: float) -> None:
        """Shortens the time of the present phase to `deadline`."""
        if deadline < self.deadline:
            self.deadline = deadline
            self._context.loop.due_at(deadline)

    # Reading

    def _read(self, now: float) -> None:
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:  # reset by the peer, timed out in the kernel
            self.close(now)
            return
        if data:
            self._take(data, now)
        elif self.phase is _IDLE and not self._inbound.begun:
            self.close(now)
        else:
            # A body that was cut off must never look whole (RFC 9112 section 8).
            self._refuse(Refusal(400, "the connection ended within the request"), now)

    def _take(self, data: bytes, now: float) -> None:
        """Answers the requests that these bytes complete."""
        inbound = self._inbound
        try:
            for _ in range(_BURST):
                request = inbound.receive(data) if inbound.body is None else self._read_body(data, now)
                if request is not None and inbound.body is not None:
                    request = self._begin_body(request, now)
                if request is None:
                    self._await_head(now)
                    return
                if not self._serve(request, now) or not inbound.rest:
                    return
                data = b""
                now = time.monotonic()
        except Refusal as refusal:
            self._refuse(refusal, now)
            return
        self.phase = Phase.QUEUED
        self._context.loop.later(self._take_more)

    def _take_more(self, now: float) -> None:
        if self.phase is _QUEUED:
            self.phase = _IDLE
            try:
                self._take(b"", now)
            except Exception as exc:  # as above
                self._fail(exc, now)

    def _await_head(self, now: float) -> None:
        """Limits the time of a head that has begun."""
        if self.phase is _IDLE and self._inbound.begun:
            self.phase = Phase.HEAD
            self._set_deadline(now + self._context.times.head)

    def _begin_body(self, request: Request, now: float) -> Request | None:
        """Returns a request with a longer body, once the application can be called for it; else None."""
        if self._context.convention.streams:
            self._body = self._stream(request)
            return request
        self._body = BodySpool(self._context.budget, now)
        if request.expects:
            request.expects = False
            self._delivery.say(CONTINUE)
        return self._read_body(b"", now)

    def _stream(self, request: Request) -> Body:
        return BodyStream(request, self._inbound, self._sock, self._context.times.body)

    def _read_body(self, data: bytes, now: float) -> Request | None:
        """Returns the request whose body is complete with these bytes; else None."""
        inbound, spool = self._inbound, self._body
        request, body = inbound.request, inbound.body
        assert request is not None
        assert body is not None
        assert isinstance(spool, BodySpool)
        try:
            spool.add(inbound.read_body(data))
        except OSError as exc:
            self._context.log.error(f"{request.label}: keep its body: {exc.strerror}; it is answered with 500")
            raise Refusal(500, "there is no room for the body") from exc
        if not body.complete:
            self.phase = Phase.BODY
            limit = self._context.times.body
            slowest = spool.began + limit + body.received / LEAST_RATE
            self._set_deadline(min(now + limit, slowest))
            return None
        inbound.end_body()
        spool.trailers = body.trailers
        return request

    def _refuse(self, refusal: Refusal, now: float) -> None:
        """Answers without the application, and ends the connection."""
        data = answer(refusal.status, self._context.stamp(), bodiless=self._inbound.is_head)
        self._context.recorder.refused(now, refusal.status, len(data), self._inbound.scope)
        self._drop_body()
        self._delivery.say(data)
        self._linger(now)

    # Answering

    def _serve(self, request: Request, now: float) -> bool:
        """Calls the application. Returns True if the response is sent and the connection can take a request."""
        context, delivery = self._context, self._delivery
        if context.closing:
            request.keep_alive = False
        convention = context.convention
        context.recorder.begin(now, request.line)
        responder = self._responder = convention.responder(request, self._body, delivery.push)
        queue = delivery.queue
        # Not the bound method, which costs run() a copy of the arguments: 0.2 µs.
        now = convention.variables.copy().run(_answer, delivery, responder, context.recorder, now)
        if queue.items or queue.broken:
            self._await_reader(responder, now)
            return False
        return self._finish(responder, now)

    def _await_reader(self, responder: _Answered, now: float) -> None:
        """Waits for the client to take the rest of the response, after the application's end."""
        if self._delivery.queue.broken:
            self.reset(now)
            return
        # Does not keep the responder, which refers to the scope, and so to the body.
        self._ending = _Ending(responder.keep_alive, responder.must_reset, responder.request.label)
        self._responder = None
        self._drop_body()
        self.phase = _ANSWERING
        self._context.loop.want(self._fd, EPOLLOUT)
        self._set_deadline(now + self._context.times.send)

    def _send_more(self, now: float) -> None:
        """Sends more of the response, after the client has taken bytes."""
        ending, queue = self._ending, self._delivery.queue
        assert ending is not None
        try:
            taken = queue.flush(self._sock)
        except EOFError:
            self._context.log.error(f"{ending.label}: the file became shorter while it was sent")
            self.reset(now)
            return
        except OSError:
            self.close(now)
            return
        if taken:
            self._set_deadline(now + self._context.times.send)
        if queue.items:
            return
        self._ending = None
        if self._finish(ending, now) and self._inbound.begun:
            self._take(b"", now)

    def _mute(self) -> None:
        """Handles bytes that arrive during a call; only with several threads (`wsgi/threaded.py`)."""

    def _finish(self, responder: _Answered | _Ending, now: float) -> bool:
        """Ends a response that is sent. Returns True if the connection can take the next request."""
        self._responder = None
        self.served += 1
        keep_alive = responder.keep_alive
        if not keep_alive and responder.must_reset:
            self.reset(now)
            return False
        body, self._body = self._body, None
        if (body is not None and not body.finish()) or not keep_alive:
            if self._delivery.armed:
                self._delivery.disarm()
            if isinstance(responder, _Ending) or responder.request.keep_alive or not self._is_left():
                self._linger(now)
            else:
                self.close(now)
            return False
        context = self._context
        if self.phase is _ANSWERING:
            context.loop.want(self._fd, EPOLLIN)
        self.phase = _IDLE
        # `_set_deadline`, without two calls for each request: the deadline of a connection that idles is a late one.
        self.deadline = deadline = now + context.times.idle
        if deadline < context.loop.due:
            context.loop.due_at(deadline)
        return True

    # Ending

    def _is_left(self) -> bool:
        """Tells, after a request that asked for the end of the connection, whether the client has sent nothing after
        it: then a close sends no reset. False in a drain, which ends connections itself, and with TLS.
        """
        inbound = self._inbound
        if self._context.closing or inbound.rest or inbound.body or not isinstance(self._sock, socket.socket):
            return False
        try:
            return not self._sock.recv(READ)
        except OSError:  # nothing has come, or it is gone already
            return True

    def _linger(self, now: float) -> None:
        """Half-closes: a full close with unread bytes would send a reset, and the client might lose the answer (RFC
        9112 section 9.6).
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:  # it is gone already
            self.close(now)
            return
        if self.phase is _ANSWERING:
            self._context.loop.want(self._fd, EPOLLIN)
        self.phase = _LINGERING
        self._set_deadline(now + self._context.times.linger)
        self._context.connections.linger(self, now)

    def _throw_away(self, now: float) -> None:
        try:
            data = self._sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._linger_left -= len(data)
        if not data:
            self.close(now)
        elif self._linger_left <= 0:
            # A close now would send a reset, and a client that is still sending (a proxy) would lose the answer. So the
            # client fills the kernel's buffers and then blocks, until it reads the answer or the time is over.
            self._context.loop.want(self._fd, 0)

    def _fail(self, exc: Exception, now: float) -> None:
        """Logs and closes after a bug in srvd, or after the application has closed a descriptor."""
        self._context.log.error(f"{blame(exc)}; {self!r} is closed\n{format_traceback(exc)}")
        self.close(now)

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.let_go()

    def _set_deadline(self, deadline: float) -> None:
        self.deadline = deadline
        self._context.loop.due_at(deadline)
