"""One response as its application gives it: what goes on the wire of its head, its body and its trailers.

Sends nothing: `http.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from srvd.http.h1.response import BodyFraming, Framing, ResponseInvalid, open_response
from srvd.worker.asgi.incoming import IncomingRequest
from srvd.worker.asgi.messages.extensions import trailers_of
from srvd.worker.asgi.messages.response import Start, check_left

if TYPE_CHECKING:
    from srvd.http.h1.head import Request
    from srvd.worker.asgi.application import AsgiApplication

__all__ = ["OutgoingResponse"]

_WHOLE = BodyFraming(Framing.LENGTH, 0)
"""Of all responses that are made in one piece; it is never changed."""


class OutgoingResponse(IncomingRequest):
    """The sending side of a request under way."""

    __slots__ = ("_framing", "_start", "_trailers", "body_ended", "head_size", "keep_alive", "sent")

    def __init__(self, application: AsgiApplication, request: Request, now: float) -> None:
        super().__init__(application, request, now)
        self._start: Start | None = None
        self._framing: BodyFraming | None = None  # None: the head has not been sent
        self._trailers: list[bytes] | None = None  # None: not announced; []: to be left out; else begins with b""
        self.body_ended = False
        """Whether only the trailers are missing."""
        # RFC 9110 section 10.1.1: an answer before 100 Continue says that the body will not be read.
        self.keep_alive = request.keep_alive and not request.expects
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
        return "" if self._start is None else self._start.status.spelled

    @property
    def fields(self) -> str:
        """The application's fields, "Name: value\r\n" …, for the access log."""
        return "" if self._start is None else self._start.fields.logged

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

    def cut(self) -> None:
        """Marks a response whose body will not be complete."""
        self.keep_alive = False
        if self._framing is not None:
            self._framing.cut = True

    def _announces_trailers(self, start: Start, *, announced: bool) -> None:
        """Trailers are sent to a client that says it reads them, behind a body in chunks (RFC 9110 section 6.5)."""
        if announced:
            asked = any(name == b"te" and b"trailers" in value.lower() for name, value in self.request.scope["headers"])
            chunked = start.fields.length < 0 and not start.status.bodiless and self.request.method != "HEAD"
            self._trailers = [b""] if asked and chunked and self.request.minor else []

    def _add_trailers(self, message: Mapping[str, Any]) -> bytes:
        """Returns the end of the response with all trailers; b"" if more of them follow, or they are left out. Raises
        `ResponseInvalid`.
        """
        kept = self._trailers
        if kept is None or not (self.body_ended or self.ended or self.gone):
            raise ResponseInvalid("http.response.trailers was not announced, or came before the end of the body")
        text, more = trailers_of(message), bool(message.get("more_trailers", False))
        if kept:
            kept.append(text)
        if more:
            return b""
        self._trailers = None
        return b"0\r\n%b\r\n" % b"".join(kept) if kept else b""

    def _around(self, start: Start, size: int, *, more: bool) -> tuple[bytes, bytes]:
        """Returns what goes on the wire before and behind so many bytes of the body. Raises `ResponseInvalid`."""
        framing, head = self._framing, b""
        if self._trailers and not more:
            self.body_ended = more = True
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
        if self._trailers and not more:
            self.body_ended = more = True  # the end of the response comes behind the trailers
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
