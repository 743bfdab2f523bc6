"""Calls the application for one request, by the convention of PEP 3333, and turns its response into bytes to send.

Has no socket: the connection asks for the next bytes until the end, on the thread and in the context of the first call.
The connection also copes with a slow client, so that every response is made to its end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from types import TracebackType
from typing import Any

from srvd.http.h1.head import Request
from srvd.http.h1.refusal import REASONS
from srvd.http.h1.response import (
    CONTINUE,
    Fields,
    Framing,
    ResponseInvalid,
    Status,
    check_fields,
    check_status,
    open_response,
)
from srvd.worker.context import WorkerContext
from srvd.worker.net.errors import BodyBroken, ReaderGone
from srvd.worker.net.file_span import Span
from srvd.worker.net.responder import Body, Push
from srvd.worker.tracebacks import format_traceback
from srvd.worker.wsgi.environ import put_body
from srvd.worker.wsgi.files import FileWrapper

__all__ = ["Exchange", "ResponseOver", "Write"]

Write = Callable[[bytes], None]
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

_OVER = object()
# Head and body go in one send, unless copying the body costs more than another send.
_LONGEST_JOINED = 65_536
EARLY_HINTS = "wsgi.early_hints"
_FAILED = check_status("500 Internal Server Error")
_FAILED_BODY = b"500 Internal Server Error\n"
_FAILED_FIELDS = check_fields([("Content-Type", "text/plain; charset=utf-8")])


class ResponseOver(RuntimeError):
    """Raised into an application that gives more for a response that has ended: the connection may serve another
    request.
    """


class Exchange:
    """A `Responder` for WSGI, from the call of the application to the end of its response."""

    __slots__ = (
        "_bytes_left",
        "_close",
        "_context",
        "_fields",
        "_framing",
        "_iterator",
        "_push",
        "_status",
        "_writing",
        "code",
        "ended",
        "failure",
        "head_size",
        "keep_alive",
        "must_reset",
        "request",
        "sent",
        "span",
    )  # fmt: skip

    def __init__(self, context: WorkerContext, request: Request, body: Body, push: Push) -> None:
        self._context = context
        self._push = push
        self._status: Status | None = None
        self._fields: Fields | None = None
        self._framing: Framing | None = None  # None: the head has not been made
        self._bytes_left = 0  # of Content-Length
        self._iterator: Iterator[bytes] | bytes | None = None  # bytes: the whole body, after its head
        self._close: Callable[[], object] | None = None
        self._writing = 0  # threads that are in write() or the like
        self.request = request
        environ = request.scope
        environ[EARLY_HINTS] = self.early_hints
        if body is None:
            environ["wsgi.input"] = BytesIO(request.whole)
        else:
            put_body(environ, body, self.proceed)
        # RFC 9110 section 10.1.1: an answer before 100 Continue says that the body will not be read.
        self.keep_alive = request.keep_alive and not context.closing and not request.expects
        self.ended = False
        self.must_reset = False
        """Whether only a reset shows the client that the body is incomplete, since its end is the connection's end."""
        self.code = 500
        """The status of the answer."""
        self.failure = ""
        """The traceback of the application's exception, or ""."""
        self.sent = 0
        self.head_size = 0
        """Bytes of the head."""
        self.span: Span | None = None
        """A part of a file to send after the bytes. The caller must close the descriptor."""

    @property
    def endless(self) -> bool:
        """Whether the response ends with the connection, which the kernel must reset if the worker is killed before."""
        return self._framing is Framing.CLOSE

    @property
    def status(self) -> str:
        """The status as the application spelt it."""
        return self._status.line[9:].rstrip().decode("latin-1") if self._status else ""

    @property
    def fields(self) -> str:
        """The application's fields, "Name: value\r\n" …, for the access log."""
        fields = self._fields
        if fields is None:
            return ""
        text = fields.text.decode("latin-1")
        return text if fields.length < 0 else f"{text}Content-Length: {fields.length}\r\n"

    def start(self) -> bytes:
        """Calls the application, and returns the first bytes of its response."""
        try:
            result: Any = self._context.app(self.request.scope, self.start_response)
            if type(result) is list and len(result) == 1 and self._framing is None and self._fields is not None:
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
        elif self._status is not None:
            raise ResponseInvalid("start_response was called twice, without exc_info")
        # Both are checked before either is set: a refused response must leave nothing behind.
        checked = check_status(status)
        self._fields = fields = check_fields(headers)
        if fields.dropped:
            self._context.warn_of_dropped(self.request.label, fields.dropped)
        self._status = checked
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
            self._context.warn_of_dropped(self.request.label, fields.dropped)
        if self.request.minor:
            self._speak(lambda: self._interim(b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % fields.text))

    def proceed(self) -> None:
        """Asks the client for the body, by 100 Continue (RFC 9110 section 10.1.1), because the application reads it.

        Does nothing once the response has begun: the client has had its answer, and may send the body or not.
        """
        if self._framing is None and not self.ended:
            self.request.expects = False
            self.keep_alive = self.request.keep_alive and not self._context.closing
            self._speak(lambda: self._interim(CONTINUE))

    def more(self) -> bytes:
        """Returns the next bytes of the response; b"" if there are none now."""
        iterator = self._iterator
        if iterator is None:
            return self._finish()
        if isinstance(iterator, bytes):
            self._end()
            return iterator
        try:
            block: Any = next(iterator, _OVER)
            return self._finish() if block is _OVER else self._frame(block)
        except BaseException as exc:  # as in start
            return self._failed(exc)

    def abandon(self) -> None:
        """Ends the response early: the client does not read it any more."""
        if self.span is not None:
            os.close(self.span.fd)
            self.span = None
        self.must_reset = self._framing is Framing.CLOSE
        self._end()

    def _begin(self, result: Any) -> bytes:
        kind = type(result)
        if kind is list or kind is tuple:
            if self._framing is None and all(type(block) is bytes for block in result):
                return self._whole(b"".join(result))
        else:
            self._close = getattr(result, "close", None)
        self._iterator = iter(result)
        if kind is FileWrapper and self._framing is None:
            span = result.span()
            if span is not None:
                return self._file(span)
        return self.more()

    def _whole(self, body: bytes) -> bytes:
        """Returns the whole response; the head alone if the body is long, which `more` returns then."""
        if not isinstance(body, bytes):
            raise ResponseInvalid(f"the body is {type(body).__name__}, not bytes")
        status, fields, request = self._status, self._fields, self.request
        if (
            fields is not None
            and fields.end
            and fields.length == len(body) <= _LONGEST_JOINED
            and self.keep_alive
            and request.minor
            and request.method != "HEAD"
            and status is not None
            and not status.bodiless
        ):  # nearly always; the code below has the same result
            self._framing = Framing.LENGTH
            self._end()
            data = b"%b%b%b%b" % (status.line, self._context.stamp(), fields.end, body)
            self.head_size += len(data) - len(body)
            return data
        head = self._open(len(body))
        if self._framing is Framing.NONE:
            body = b""
        elif len(body) != self._bytes_left:
            body = self._fit(body)
            self._check_short()
        if len(body) > _LONGEST_JOINED:
            self._iterator = body
            return head
        self._end()
        return head + body

    def _file(self, span: Span) -> bytes:
        """Returns the head, and sets `span`. Its descriptor is a copy, so that close() need not wait for the client."""
        head = self._open(span.length)
        count = 0 if self._framing is Framing.NONE else min(span.length, self._bytes_left)
        if count:
            try:
                self.span = Span(os.dup(span.fd), span.offset, count)
            except OSError:  # too many open files: the file is read instead
                return head
        self._bytes_left -= count
        self._iterator = None
        return head

    def _open(self, whole: int) -> bytes:
        """Makes the head; `whole` as for `open_response`. Raises `ResponseInvalid` without a call of start_response."""
        status, fields = self._status, self._fields
        if status is None or fields is None:
            raise ResponseInvalid("start_response was not called")
        request = self.request
        opening = open_response(
            status, fields, self._context.stamp(), request.method == "HEAD", request.minor, self.keep_alive, whole
        )
        head = opening.head
        self._framing = opening.framing
        self.head_size += len(head)
        self.keep_alive = opening.keep_alive
        self._bytes_left = fields.length if fields.length >= 0 else whole
        return head

    def _frame(self, block: bytes) -> bytes:
        """Frames one block of the application, with the head before the first."""
        if not isinstance(block, bytes):
            raise ResponseInvalid(f"a block of the body is {type(block).__name__}, not bytes")
        if not block:
            return b""
        head = self._open(-1) if self._framing is None else b""
        framing = self._framing
        if framing is Framing.CHUNKED:
            return b"%b%x\r\n%b\r\n" % (head, len(block), block)
        if framing is Framing.NONE:
            return head + self._finish()
        if framing is Framing.LENGTH:
            block = self._fit(block)
        return head + block

    def _fit(self, block: bytes) -> bytes:
        """Cuts a block to the bytes left of Content-Length."""
        left = self._bytes_left
        if len(block) > left:
            self._complain("it gave more than its Content-Length; the rest was not sent")
            block = block[:left]
            self.keep_alive = False
        self._bytes_left = left - len(block)
        return block

    def _check_short(self) -> None:
        if self._bytes_left:
            # RFC 9112 section 8: the client must see that the body is incomplete, and take no later response for it.
            self._complain(f"it gave {self._bytes_left} bytes less than its Content-Length")
            self.keep_alive = False

    def _finish(self) -> bytes:
        head = self._open(0) if self._framing is None else b""
        if self._framing is Framing.LENGTH:
            self._check_short()
        self._end()
        return head + b"0\r\n\r\n" if self._framing is Framing.CHUNKED else head

    def _failed(self, exc: BaseException) -> bytes:
        status, body = _FAILED, _FAILED_BODY
        if isinstance(exc, BodyBroken):
            status = check_status(f"{exc.status} {REASONS[exc.status]}")
            body = f"{exc.status} {REASONS[exc.status]}\n".encode("ascii")
            self.keep_alive = False
        elif not isinstance(exc, ReaderGone):
            self.failure = format_traceback(exc)
            self._context.log.error(f"{self.request.label}: the application failed\n{self.failure}")
        self._end()
        if self._framing is not None:
            # The head is sent: the connection must end so that the body does not look complete.
            self.must_reset = self._framing is Framing.CLOSE
            self.keep_alive = False
            return b""
        self._status, self._fields = status, _FAILED_FIELDS
        self.code = status.code
        head = self._open(len(body))
        return head if self._framing is Framing.NONE else head + body

    def _end(self) -> None:
        """Releases the objects of the application. PEP 3333: calls close() in any case."""
        self.ended = True
        if self._writing:
            self._await_writers()
        close, self._close = self._close, None
        # The entry refers to this object, which refers to the environ: a reference cycle for each request if it stayed.
        self.request.scope.pop(EARLY_HINTS, None)
        self._iterator = None
        if close is not None:
            try:
                close()
            except BaseException as exc:  # the application ends here, too
                trace = format_traceback(exc)
                self._context.log.error(f"{self.request.label}: close() of the response failed\n{trace}")

    def _write(self, data: bytes) -> None:
        """`write`, which start_response returns (PEP 3333, "The write() Callable")."""
        self._speak(lambda: self._frame(data))

    def _speak(self, words: Callable[[], bytes]) -> None:
        """Sends bytes outside of `start` and `more`. Raises `ResponseOver` if the response has ended.

        A thread that the application has left behind may call this at any time, and must not send between the end of
        this response and the beginning of the next one. So it raises the count before it reads `ended`, and `_end` sets
        `ended` before it reads the count.
        """
        with self._context.writing:
            self._writing += 1
        try:
            if self.ended:
                raise ResponseOver("the response has ended; nothing more can be given for it")
            framed = words()
            if framed:
                self._push(self, framed)
        finally:
            with self._context.writing:
                self._writing -= 1

    def _interim(self, data: bytes) -> bytes:
        self.head_size += len(data)
        return data

    def _await_writers(self) -> None:
        """Waits until other threads have left `_speak`, where `send_timeout` limits their time."""
        while self._writing:
            time.sleep(0.001)

    def _complain(self, what: str) -> None:
        self._context.log.error(f"{self.request.label}: the response does not fit its head: {what}")
