"""One request and its response, by the convention of ASGI: a task that calls the application, its receive and send.

Has no socket: a `Wire` takes bytes, and feeds the body. Every method runs on the thread of the loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from srvd.http.h1.response import (
    CONTINUE,
    BodyFraming,
    Framing,
    ResponseInvalid,
    check_fields,
    check_status,
    open_response,
)
from srvd.worker.app.hooks import PROBE, call
from srvd.worker.asgi.extensions import FILES, HINT, PATH, hint_of, span_of
from srvd.worker.asgi.incoming import IncomingRequest, Message
from srvd.worker.asgi.messages import Start, body_of, check_left, start_of
from srvd.worker.asgi.scope import own
from srvd.worker.net.errors import ReaderGone, comes_of_the_end
from srvd.worker.tracebacks import format_traceback

if TYPE_CHECKING:
    from srvd.http.h1.head import Request
    from srvd.worker.asgi.application import AsgiApplication
    from srvd.worker.net.file_span import Span

__all__ = ["HttpCycle", "Wire"]

_FAILED = Start(
    check_status("500 Internal Server Error"), check_fields([("Content-Type", "text/plain; charset=utf-8")])
)
_FAILED_BODY = b"500 Internal Server Error\n"
_WHOLE = BodyFraming(Framing.LENGTH, 0)
"""Of all responses that are made in one piece; it is never changed."""


class Wire(Protocol):
    """The side of the client, for one request."""

    def send(self, cycle: HttpCycle, data: bytes) -> bool:
        """Sends bytes; keeps what the client does not take. Returns False if too much is kept: the application has to
        wait, until `has_room`. Raises `ReaderGone`.
        """

    def send_file(self, cycle: HttpCycle, before: bytes, span: Span, after: bytes) -> bool:
        """Sends bytes, a part of a file, whose descriptor it closes, and bytes again. Returns what `send` does. Raises
        `ReaderGone`.
        """

    def has_room(self) -> bool:
        """Whether so little is kept that the application may send more."""

    def want_body(self, cycle: HttpCycle) -> None:
        """Goes on reading the body, because the application asks for it."""

    def streams(self, cycle: HttpCycle) -> None:
        """The response is an event stream, which may be silent for as long as it likes."""

    def over(self, cycle: HttpCycle) -> None:
        """The response has ended, whole or cut."""

    def done(self, cycle: HttpCycle) -> None:
        """The application's task has ended."""


class HttpCycle(IncomingRequest):
    """A request under way. The application runs until its task ends, maybe beyond the end of the response."""

    __slots__ = (
        "_framing", "_start", "_wire", "cancelled", "failure", "head_size", "keep_alive", "sent", "task",
    )  # fmt: skip

    def __init__(self, application: AsgiApplication, request: Request, wire: Wire, now: float) -> None:
        super().__init__(application, request, now)
        self._wire = wire
        self._start: Start | None = None
        self._framing: BodyFraming | None = None  # None: the head has not been sent
        self.task: asyncio.Task[None] | None = None
        # RFC 9110 section 10.1.1: an answer before 100 Continue says that the body will not be read.
        self.keep_alive = request.keep_alive and not request.expects
        self.cancelled = False
        """Whether the worker has cancelled the task."""
        self.failure = ""
        self.head_size = 0
        self.sent = 0

    @property
    def code(self) -> int:
        """The status of the response; 499 if the client left before there was one."""
        if self._start is None:
            return 499 if self.gone else 500
        return self._start.status.code

    @property
    def status(self) -> str:
        return "" if self._start is None else self._start.status.line[9:].rstrip().decode("latin-1")

    @property
    def fields(self) -> str:
        """The application's fields, "Name: value\r\n" …, for the access log."""
        if self._start is None:
            return ""
        fields = self._start.fields
        text = fields.text.decode("latin-1")
        return text if fields.length < 0 else f"{text}Content-Length: {fields.length}\r\n"

    @property
    def is_event_stream(self) -> bool:
        """Whether the response is a stream of server-sent events, which has no end of its own."""
        return self._start is not None and self._start.is_stream

    @property
    def opened(self) -> bool:
        """Whether a part of the response was sent."""
        return self._framing is not None

    @property
    def must_reset(self) -> bool:
        return self._framing is not None and self._framing.must_reset

    @property
    def endless(self) -> bool:
        return self._framing is not None and self._framing.kind is Framing.CLOSE

    def begin(self) -> None:
        """Makes the task that calls the application."""
        application = self._application
        loop, variables = application.loop, application.variables.copy()
        if sys.version_info >= (3, 12):
            # At once: a task that does not wait is over when this returns.
            task = asyncio.Task(self._run(), loop=loop, context=variables, eager_start=True)
            self.task = None if task.done() else task
        else:
            self.task = asyncio.Task(self._run(), loop=loop, context=variables)

    def proceed(self) -> None:
        """Asks the client for the body (RFC 9110 section 10.1.1), unless the response has begun."""
        if self._framing is None and not self.ended:
            self.keep_alive = self.request.keep_alive
            with suppress(ReaderGone):  # `receive` tells the application
                self._interim(CONTINUE)

    def refuse(self, start: Start) -> None:
        """Takes note that the worker has answered in the place of the application."""
        if self._start is None or self._framing is None:
            self._start = start
        self.lose()

    def cut(self) -> None:
        """Marks a response whose body will not be complete."""
        self.keep_alive = False
        if self._framing is not None:
            self._framing.cut = True

    def cancel(self) -> None:
        """Cancels the application's task."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()

    # The application's side

    def _read_on(self) -> None:
        self._wire.want_body(self)

    async def send(self, message: Message) -> None:
        """Sends a message of the application. Raises `ResponseInvalid` for one that is wrong or comes at a wrong time;
        nothing of it is sent. Raises `ReaderGone`, an OSError, if the client is gone.
        """
        try:
            kind = message["type"]
        except (TypeError, KeyError):
            raise ResponseInvalid(f"{message!r} is no message: it has no type") from None
        if self.ended and not self.gone:
            raise ResponseInvalid(f"{kind}: the response has ended")
        if self._start is None or kind != "http.response.body":
            if self._start is not None and kind in FILES:
                await self._send_file(self._start, message)
            else:
                self._take_start(kind, message)
            return
        unsent = self._application.unsent
        if unsent and unsent[-1] is self:  # nearly always: the head goes with the first part
            unsent.pop()
        body, more = body_of(message), bool(message.get("more_body", False))
        data = self._framed(self._start, body, more=more)
        if self.gone:
            raise ReaderGone("the client is gone")
        if more:
            self.gave = monotonic()
            if data:
                await self._pass_on(data)
            return
        self.ended = True
        self.sent += len(data)
        self._wire.send(self, data)
        self._wire.over(self)
        if self._waiters:
            self.wake()

    def send_head(self) -> None:
        """Sends the head, since the first part of the body is still to come."""
        if self._start is not None and self._framing is None and not self.gone and not self.ended:
            head, _ = self._open(self._start, -1)
            self.sent += len(head)
            self._wire.send(self, head)

    async def _pass_on(self, data: bytes) -> None:
        """Sends bytes, and waits while the client has too much to take. Raises `ReaderGone`."""
        self.sent += len(data)
        if not self._wire.send(self, data):
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        while not self.gone and not self._wire.has_room():
            await self._wait()
        if self.gone:
            raise ReaderGone("the client is gone")

    def _take_start(self, kind: str, message: Mapping[str, Any]) -> None:
        if kind == HINT:
            self._hint(message)
            return
        if kind not in ("http.response.start", "http.response.body"):
            raise ResponseInvalid(f"{kind!r} is no message of a response that srvd knows")
        if kind == "http.response.body":
            raise ResponseInvalid("http.response.body came before http.response.start")
        if self._start is not None and not self.gone:
            raise ResponseInvalid("http.response.start came twice")
        start = start_of(message)
        if message.get("trailers"):
            raise ResponseInvalid("trailers are not among the extensions of this server")
        if self.gone:
            raise ReaderGone("the client is gone")
        self._start = start
        if start.fields.dropped:
            self._application.dropped_fields.tell(self.request.label, start.fields.dropped)
        self._application.unsent.append(self)
        if start.is_stream:
            self._wire.streams(self)

    def _hint(self, message: Mapping[str, Any]) -> None:
        """Sends early hints; nothing to a client of HTTP/1.0, which would take them for the response."""
        hint = hint_of(message)
        if self._start is not None:
            raise ResponseInvalid("early hints come before the response")
        if self.request.minor and not self.gone:
            self._interim(hint)

    def _interim(self, data: bytes) -> None:
        self.head_size += len(data)
        self.sent += len(data)
        self._wire.send(self, data)

    async def _send_file(self, start: Start, message: Mapping[str, Any]) -> None:
        """Sends a file, or a part of one, as a part of the body or all of it."""
        span, more = span_of(message), message["type"] != PATH and bool(message.get("more_body", False))
        try:
            before, after = self._around(start, span.length, more=more)
            if self.gone:
                raise ReaderGone("the client is gone")
        except BaseException:
            os.close(span.fd)
            raise
        self.ended = not more
        self.gave = monotonic()
        self.sent += len(before) + len(after)
        if self._framing is not None and self._framing.kind is Framing.NONE:
            os.close(span.fd)
            room = self._wire.send(self, before)
        else:
            self.sent += span.length
            room = self._wire.send_file(self, before, span, after)
        if not more:
            self._wire.over(self)
            self.wake()
        elif not room:
            await self._wait_for_room()

    def _around(self, start: Start, size: int, *, more: bool) -> tuple[bytes, bytes]:
        """Returns what goes on the wire before and behind so many bytes of the body. Raises `ResponseInvalid`."""
        framing, head = self._framing, b""
        if framing is None:
            self._check_length(start, size, more=more)
            head, framing = self._open(start, -1 if more else size)
        else:
            check_left(framing, size, more=more)
        if framing.kind is Framing.LENGTH:
            framing.left -= size
        chunked = framing.kind is Framing.CHUNKED and size > 0
        end = b"" if more else framing.end()
        return (b"%b%x\r\n" % (head, size), b"\r\n" + end) if chunked else (head, end)

    def _check_length(self, start: Start, size: int, *, more: bool) -> None:
        """Raises `ResponseInvalid` if the first part of a body does not fit the Content-Length."""
        if start.fields.length >= 0 and self.request.method != "HEAD" and not start.status.bodiless:
            check_left(BodyFraming(Framing.LENGTH, start.fields.length), size, more=more)

    def _framed(self, start: Start, body: bytes, *, more: bool) -> bytes:
        """Returns a part of the body as it goes on the wire, with the head before the first. Raises `ResponseInvalid`
        for a body that is not as long as its Content-Length says.
        """
        framing, fields = self._framing, start.fields
        if framing is None:
            if (
                not more
                and fields.end
                and fields.length == len(body)
                and self.keep_alive
                and self.request.minor
                and self.request.method != "HEAD"
                and not start.status.bodiless
            ):  # nearly always; the code below has the same result
                data = b"%b%b%b%b" % (start.status.line, self._application.stamp(), fields.end, body)
                self._framing = _WHOLE
                self.head_size += len(data) - len(body)
                return data
            self._check_length(start, len(body), more=more)
            head, framing = self._open(start, -1 if more else len(body))
        else:
            check_left(framing, len(body), more=more)
            head = b""
        data = head + framing.block(body) if body else head
        return data if more else data + framing.end()

    def _open(self, start: Start, whole: int) -> tuple[bytes, BodyFraming]:
        head, framing, self.keep_alive = open_response(
            start.status, start.fields, self._application.stamp(), self.request.method == "HEAD", self.request.minor,
            self.keep_alive, whole,
        )  # fmt: skip
        self._framing = framing
        self.head_size += len(head)
        return head, framing

    async def _run(self) -> None:
        application, scope = self._application, self.request.scope
        own(scope, application.state)
        if application.before_request is not None and PROBE not in scope:
            call(application.before_request, "before_request", application.log, scope)
        try:
            await application.call(scope, self.receive, self.send)
        except BaseException as exc:  # the application ends here: SystemExit fails the request, not the worker
            self._fail(exc)
        else:
            if not self.ended and not self.gone:
                self._fail_silent()
        finally:
            self.task = None
            self._wire.done(self)

    def _fail(self, exc: BaseException) -> None:
        if not (self.cancelled and isinstance(exc, asyncio.CancelledError)) and not (
            self.gone and comes_of_the_end(exc)
        ):
            self.failure = format_traceback(exc)
            after = " after its response" if self.ended else ""
            self._application.log.error(f"{self.request.label}: the application failed{after}\n{self.failure}")
        if not self.ended and not self.gone:
            self._end_failed()

    def _fail_silent(self) -> None:
        what = "without a response" if self._start is None else "before the end of its response"
        self.failure = f"the application returned {what}"
        if not self.left:  # else it was told that the client has left
            self._application.log.error(f"{self.request.label}: {self.failure}")
        self._end_failed()

    def _end_failed(self) -> None:
        self.ended = True
        if self._framing is not None:
            # The head is sent: the connection must end so that the body does not look complete.
            self.cut()
        else:
            self._start = _FAILED
            head, framing = self._open(_FAILED, len(_FAILED_BODY))
            data = head + framing.block(_FAILED_BODY)
            self.sent += len(data)
            try:
                self._wire.send(self, data)
            except ReaderGone:
                return
        self._wire.over(self)
        self.wake()
