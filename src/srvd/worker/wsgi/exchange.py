"""Calls the application for one request, by the convention of PEP 3333, and turns its response into bytes to send.

Has no socket: the connection asks for the next bytes until the end, on the thread and in the context of the first call.
The connection also copes with a slow client, so that every response is made to its end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from io import BytesIO
from types import TracebackType
from typing import Any

from srvd.http.h1.head import Request
from srvd.http.h1.refusal import REASONS
from srvd.http.h1.response import (
    CONTINUE,
    BodyFraming,
    Fields,
    Framing,
    ResponseInvalid,
    Status,
    check_fields,
    check_status,
    open_response,
)
from srvd.worker.net.errors import BodyBroken, ReaderGone, RequestTimeout
from srvd.worker.net.file_span import Span
from srvd.worker.net.responder import Body, Push
from srvd.worker.tracebacks import format_traceback
from srvd.worker.wsgi.application import WsgiApplication
from srvd.worker.wsgi.environ import put_body
from srvd.worker.wsgi.files import FileWrapper

__all__ = ["Exchange", "ResponseOver", "Write"]

Write = Callable[[bytes], None]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_OVER = object()
# Head and body go in one send, unless copying the body costs more than another send.
_LONGEST_JOINED = 65_536
EARLY_HINTS = "wsgi.early_hints"
_LESS = "it gave {} bytes less than its Content-Length"
_FAILED = check_status("500 Internal Server Error")
_FAILED_BODY = b"500 Internal Server Error\n"
_FAILED_FIELDS = check_fields([("Content-Type", "text/plain; charset=utf-8")])


class ResponseOver(RuntimeError):
    """Raised into an application that gives more for a response that has ended: the connection may serve another
    request.
    """


# Plain tuples, since each request makes them.
_Said = tuple[Status, Fields]
"""What the application said in start_response, checked."""
_Result = tuple[Iterator[bytes], Callable[[], object] | None]
"""What the application returned, if the response is not made of it at once: the blocks, and close()."""

_NO_BLOCKS: Iterator[bytes] = iter(())
_WHOLE = BodyFraming(Framing.LENGTH, 0)
"""Of all responses that are made in one piece; it is never changed."""


class Exchange:
    """A `Responder` for WSGI, from the call of the application to the end of its response."""

    __slots__ = (
        "_application", "_framing", "_push", "_result", "_said",
        "code", "ended", "failure", "head_size", "keep_alive", "request", "span",
    )  # fmt: skip

    def __init__(self, application: WsgiApplication, request: Request, body: Body, push: Push) -> None:
        self._application = application
        self._push = push
        self._said: _Said | None = None
        self._framing: BodyFraming | None = None  # None: the head has not been made
        self._result: _Result | bytes | None = None  # bytes: the whole body, after its head
        self.request = request
        environ = request.scope
        environ[EARLY_HINTS] = self.early_hints
        if body is None:
            environ["wsgi.input"] = BytesIO(request.whole)
        else:
            put_body(environ, body, self.proceed)
        # RFC 9110 section 10.1.1: an answer before 100 Continue says that the body will not be read.
        self.keep_alive = request.keep_alive and not request.expects
        self.code = 500
        """The status of the answer."""
        self.ended = False
        self.failure = ""
        """The traceback of the application's exception, or ""."""
        self.head_size = 0
        """Bytes of the head."""
        self.span: Span | None = None
        """A part of a file to send after the bytes. The caller must close the descriptor."""

    @property
    def must_reset(self) -> bool:
        return self._framing is not None and self._framing.must_reset

    @property
    def endless(self) -> bool:
        """Whether the response ends with the connection, which the kernel must reset if the worker is killed before."""
        return self._framing is not None and self._framing.kind is Framing.CLOSE

    @property
    def status(self) -> str:
        """The status as the application spelt it."""
        return "" if self._said is None else self._said[0].spelled

    @property
    def fields(self) -> str:
        """The application's fields, "Name: value\r\n" …, for the access log."""
        return "" if self._said is None else self._said[1].logged

    def start(self) -> bytes:
        """Calls the application, and returns the first bytes of its response."""
        try:
            result: Any = self._application.call(self.request.scope, self.start_response)
            if type(result) is list and len(result) == 1 and self._framing is None and self._said is not None:
                return self._whole(result[0])
            return self._begin(result)
        except BaseException as exc:  # the application ends here: sys.exit fails the request, not the worker
            return self._failed(exc)

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None) -> Write:
        """`start_response` of PEP 3333. Raises `ResponseInvalid` for a status or fields that must not be sent."""
        if exc_info is not None:
            if self._framing is not None and exc_info[1] is not None:
                try:
                    raise exc_info[1].with_traceback(exc_info[2])
                finally:
                    exc_info = None  # it would be a cycle with this frame
        elif self._said is not None:
            raise ResponseInvalid("start_response was called twice, without exc_info")
        # Both are checked before either is kept: a refused response must leave nothing behind.
        checked = check_status(status)
        fields = check_fields(headers)
        if fields.dropped:
            self._application.dropped_fields.tell(self.request.label, fields.dropped)
        self._said = checked, fields
        self.code = checked.code
        return self._write

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """`wsgi.early_hints`: sends the fields at once, in a response 103 (RFC 8297) before the final one.

        Sends nothing to a client of HTTP/1.0, which would take it for the final response. Raises `ResponseInvalid` for
        fields that must not be sent, or when the final response has begun.
        """
        if self._framing is not None or self.ended:
            raise ResponseInvalid("early hints come before the response")
        fields = check_fields(headers)
        if fields.length >= 0:
            raise ResponseInvalid("early hints have no body, and no Content-Length")
        if fields.dropped:
            self._application.dropped_fields.tell(self.request.label, fields.dropped)
        if self.request.minor:
            self._speak(lambda: self._interim(b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % fields.text))

    def proceed(self) -> None:
        """Asks the client for the body, by 100 Continue (RFC 9110 section 10.1.1), because the application reads it.

        Does nothing once the response has begun: the client has had its answer, and may send the body or not.
        """
        if self._framing is None and not self.ended:
            self.request.expects = False
            self.keep_alive = self.request.keep_alive
            self._speak(lambda: self._interim(CONTINUE))

    def more(self) -> bytes:
        """Returns the next bytes of the response; b"" if there are none now."""
        result = self._result
        if result is None:
            return self._finish()
        if isinstance(result, bytes):
            self._end()
            return result
        try:
            block: Any = next(result[0], _OVER)
            if block is _OVER:
                return self._finish()
            return self._frame(block)
        except BaseException as exc:  # as in start
            return self._failed(exc)

    def abandon(self) -> None:
        """Ends the response early: the client does not read it any more."""
        if self.span is not None:
            os.close(self.span.fd)
            self.span = None
        self._cut()
        self._end()

    def _begin(self, result: Any) -> bytes:
        kind = type(result)
        close = None
        if kind is list or kind is tuple:
            if self._framing is None and all(type(block) is bytes for block in result):
                return self._whole(b"".join(result))
        else:
            close = getattr(result, "close", None)
        try:
            self._result = iter(result), close
        except BaseException:
            self._result = _NO_BLOCKS, close
            raise
        if kind is FileWrapper and self._framing is None:
            span = result.span()
            if span is not None:
                return self._file(span, close)
        return self.more()

    def _whole(self, body: bytes) -> bytes:
        """Returns the whole response; the head alone if the body is long, which `more` returns then."""
        if not isinstance(body, bytes):
            raise ResponseInvalid(f"the body is {type(body).__name__}, not bytes")
        said, request = self._said, self.request
        if said is not None:
            status, fields = said
            if (
                fields.end
                and fields.length == len(body) <= _LONGEST_JOINED
                and self.keep_alive
                and request.minor
                and request.method != "HEAD"
                and not status.bodiless
            ):  # nearly always; the code below has the same result
                self._framing = _WHOLE
                self._end()
                data = b"".join([status.line, self._application.stamp(), fields.end, body])
                self.head_size += len(data) - len(body)
                return data
        head, framing = self._open(len(body))
        if len(body) > framing.left:
            self._drop_excess(framing)
        body = framing.block(body)
        if framing.is_short:
            self._misfit(_LESS.format(framing.left))
        if len(body) > _LONGEST_JOINED:
            self._result = body
            return head
        self._end()
        return head + body

    def _file(self, span: Span, close: Callable[[], object] | None) -> bytes:
        """Returns the head, and sets `span`. Its descriptor is a copy, so that close() need not wait for the client."""
        head, framing = self._open(span.length)
        count = min(span.length, framing.left)
        if count:
            try:
                self.span = Span(os.dup(span.fd), span.offset, count)
            except OSError:  # too many open files: the file is read instead
                return head
            framing.left -= count
        self._result = _NO_BLOCKS, close
        return head

    def _open(self, whole: int) -> tuple[bytes, BodyFraming]:
        """Makes the head; `whole` as for `open_response`. Raises `ResponseInvalid` without a call of start_response."""
        if self._said is None:
            raise ResponseInvalid("start_response was not called")
        status, fields = self._said
        request = self.request
        head, framing, self.keep_alive = open_response(
            status, fields, self._application.stamp(), request.method == "HEAD", request.minor, self.keep_alive, whole
        )
        self._framing = framing
        self.head_size += len(head)
        return head, framing

    def _frame(self, block: bytes) -> bytes:
        """Frames one block of the application, with the head before the first."""
        if not isinstance(block, bytes):
            raise ResponseInvalid(f"a block of the body is {type(block).__name__}, not bytes")
        if not block:
            return b""
        head, framing = b"", self._framing
        if framing is None:
            head, framing = self._open(-1)
        if len(block) > framing.left:
            self._drop_excess(framing)
        return head + framing.block(block)

    def _finish(self) -> bytes:
        head, framing = self._open(0) if self._framing is None else (b"", self._framing)
        if framing.is_short:
            # RFC 9112 section 8: the client must see that the body is incomplete, and take no later response for it.
            self._misfit(_LESS.format(framing.left))
        self._end()
        return head + framing.end()

    def _failed(self, exc: BaseException) -> bytes:
        status, body = _FAILED, _FAILED_BODY
        if isinstance(exc, RequestTimeout):
            self._application.log.error(f"{self.request.label}: ended at request_timeout\n{format_traceback(exc)}")
        if isinstance(exc, BodyBroken | RequestTimeout):
            status = check_status(f"{exc.status} {REASONS[exc.status]}")
            body = f"{exc.status} {REASONS[exc.status]}\n".encode("ascii")
            self.keep_alive = False
        elif not isinstance(exc, ReaderGone):
            self.failure = format_traceback(exc)
            self._application.log.error(f"{self.request.label}: the application failed\n{self.failure}")
        self._end()
        if self._framing is not None:
            # The head is sent: the connection must end so that the body does not look complete.
            self._cut()
            return b""
        self._said = status, _FAILED_FIELDS
        self.code = status.code
        head, framing = self._open(len(body))
        return head + framing.block(body)

    def _cut(self) -> None:
        """Marks a response whose body will not be complete."""
        self.keep_alive = False
        if self._framing is not None:
            self._framing.cut = True

    def _end(self) -> None:
        """Releases the objects of the application. PEP 3333: calls close() in any case."""
        self.ended = True
        application = self._application
        if application.writers.counts:
            application.writers.wait(self)
        # The entry refers to this object, which refers to the environ: a reference cycle for each request if it stayed.
        self.request.scope.pop(EARLY_HINTS, None)
        result, self._result = self._result, None
        if isinstance(result, tuple) and result[1] is not None:
            try:
                result[1]()
            except BaseException as exc:  # the application ends here, too
                trace = format_traceback(exc)
                application.log.error(f"{self.request.label}: close() of the response failed\n{trace}")

    def _write(self, data: bytes) -> None:
        """`write`, which start_response returns (PEP 3333, "The write() Callable")."""
        self._speak(lambda: self._frame(data))

    def _speak(self, words: Callable[[], bytes]) -> None:
        """Sends bytes outside of `start` and `more`. Raises `ResponseOver` if the response has ended."""
        writers = self._application.writers
        writers.enter(self)  # before `ended` is read, see there
        try:
            if self.ended:
                raise ResponseOver("the response has ended; nothing more can be given for it")
            framed = words()
            if framed:
                self._push(self, framed)
        finally:
            writers.leave(self)

    def _interim(self, data: bytes) -> bytes:
        self.head_size += len(data)
        return data

    def _drop_excess(self, framing: BodyFraming) -> None:
        if framing.kind is not Framing.NONE:
            self._misfit("it gave more than its Content-Length; the rest was not sent")
        elif isinstance(self._result, tuple):
            self._result = _NO_BLOCKS, self._result[1]  # the others would not be sent, either

    def _misfit(self, what: str) -> None:
        """Logs that the body is not as long as Content-Length says. It ends the connection."""
        self._application.log.error(f"{self.request.label}: the response does not fit its head: {what}")
        self.keep_alive = False
