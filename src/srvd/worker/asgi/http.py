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
    Framing,
    ResponseInvalid,
    check_fields,
    check_status,
)
from srvd.worker.app.hooks import PROBE, call
from srvd.worker.asgi.incoming import Message
from srvd.worker.asgi.messages.extensions import FILES, HINT, PATH, TRAILERS, hint_of, span_of
from srvd.worker.asgi.messages.response import Start, body_of, start_of
from srvd.worker.asgi.outgoing import OutgoingResponse
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


class HttpCycle(OutgoingResponse):
    """A request under way. The application runs until its task ends, maybe beyond the end of the response."""

    __slots__ = ("_wire", "cancelled", "failure", "task")

    def __init__(self, application: AsgiApplication, request: Request, wire: Wire, now: float) -> None:
        super().__init__(application, request, now)
        self._wire = wire
        self.task: asyncio.Task[None] | None = None
        self.cancelled = False
        """Whether the worker has cancelled the task."""
        self.failure = ""

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

    def cancel(self) -> None:
        """Cancels the application's task, once: a second time would interrupt what it does last."""
        if self.task is not None and not self.cancelled:
            self.task.cancel()
        self.cancelled = True

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
        if kind == TRAILERS:
            self._take_trailers(message)
            return
        if (self.ended or self.body_ended) and not self.gone:
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
        if more or self.body_ended:
            self.gave = monotonic()
            if data:
                await self._pass_on(data)
            return
        self._complete(data)

    def send_head(self) -> None:
        """Sends the head, since the first part of the body is still to come."""
        if self._start is not None and self._framing is None and not self.gone and not self.ended:
            head, _ = self._open(self._start, -1)
            self.sent += len(head)
            self._wire.send(self, head)

    def _complete(self, data: bytes) -> None:
        self.ended = True
        self.sent += len(data)
        self._wire.send(self, data)
        self._wire.over(self)
        if self._waiters:
            self.wake()

    def _take_trailers(self, message: Mapping[str, Any]) -> None:
        """Keeps the fields of http.response.trailers, and sends all behind the last of these messages."""
        end = self._add_trailers(message)
        if self.gone:
            raise ReaderGone("the client is gone")
        if end and not self.ended:
            self._complete(end)

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
        if self.gone:
            raise ReaderGone("the client is gone")
        self._start = start
        self._announces_trailers(start, announced=bool(message.get("trailers")))
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
            more = more or self.body_ended
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
