"""The reading side of one connection: bytes in; requests, and the pieces of their bodies, out; one at a time.

Has no socket and no clock. The caller stops reading while a request is being answered, so the reader keeps at most one
head and one read. Pure.
"""

from __future__ import annotations

from srvd.http.h1 import guard
from srvd.http.h1.body import Body, ChunkedBody, CountedBody
from srvd.http.h1.head import HeadReader, Request
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Scope

__all__ = ["Inbound"]

_END = b"\r\n\r\n"


class Inbound:
    """`receive` until it gives a request; then, if it has a `body`, `read_body` until `body.complete`."""

    __slots__ = (
        "_heads", "_limits", "_line_checked", "_refused_head", "_searched", "_template", "body", "request", "rest",
    )  # fmt: skip

    def __init__(self, heads: HeadReader, template: Scope) -> None:
        self._heads = heads
        self._template = template
        self._limits = heads.limits
        self.rest = bytearray()  # received, not used yet
        self._searched = 0  # so much of `_rest` has no end of a head in it
        self._line_checked = False
        self._refused_head: bool | None = None  # a whole head was refused; True: of a HEAD
        self.request: Request | None = None  # whose body is being read; one that came with its head is not
        self.body: Body | None = None

    @property
    def begun(self) -> bool:
        """Whether a part of a request is here, or more requests. A lone CR is the half of an empty line, so far."""
        rest = self.rest
        return bool(rest) and rest != b"\r"

    @property
    def is_head(self) -> bool:
        """Whether what is refused now is a HEAD: its answer has no body (RFC 9110 section 9.3.2)."""
        if self.request is not None:
            return self.request.method == "HEAD"
        return self.rest.startswith(b"HEAD ") if self._refused_head is None else self._refused_head

    @property
    def scope(self) -> Scope:
        """Of the request whose body is being read; before that, what all of the connection have."""
        return self._template if self.request is None else self.request.scope

    def receive(self, data: bytes) -> Request | None:
        """Takes what came; the next request, once its head is whole. Raises `Refusal`: nothing more is read then.

        Call it with `b""` for a request that came together with the one before it.
        """
        beyond = b""
        if not self.rest and (end := data.find(_END) + 4) >= 20 and data[0] > 32:
            # Nearly always: one read, one head, and maybe its body.
            head = data
            if end < len(data):
                head, beyond = data[:end], data[end:]
        else:
            found = self._next_head(data)
            if found is None:
                return None
            head = found
        try:
            request = self._heads.read(head, self._template)
        except Refusal:
            self._refused_head = head.startswith(b"HEAD ")
            raise
        length = request.length
        if length:
            if beyond:
                request.expects = False  # it has not waited
            if length == len(beyond):
                request.whole = beyond
                return request
            self.request = request
            self.body = ChunkedBody(self._limits) if length == guard.CHUNKED else CountedBody(length)
        if beyond:
            self.rest += beyond
        return request

    def read_body(self, data: bytes) -> list[bytes]:
        """Takes what came; the pieces of the body in it. What is beyond the body is kept for the next `receive`."""
        body = self.body
        assert body is not None
        if self.rest:
            data = bytes(self.rest) + data
            self.rest.clear()
        pieces, used = body.take(data)
        if used < len(data):
            self.rest += data[used:]
        return pieces

    def end_body(self) -> None:
        """The body is complete and was taken; the next request may come."""
        self.request = self.body = None

    def _next_head(self, data: bytes) -> bytes | None:
        rest = self.rest
        rest += data
        # RFC 9112 section 2.2: empty lines before a request are ignored.
        while rest.startswith(b"\r\n"):
            del rest[:2]
            self._searched = 0
        end = rest.find(_END, max(self._searched - 3, 0))
        if end < 0:
            self._check_begun()
            self._searched = len(rest)
            return None
        self._searched = 0
        self._line_checked = False
        head = bytes(rest[: end + 4])
        del rest[: end + 4]
        return head

    def _check_begun(self) -> None:
        """Refuses at once what can no longer become a good head."""
        rest = self.rest
        if not self._line_checked:
            end = rest.find(b"\r\n", max(self._searched - 1, 0))
            if end < 0:
                guard.check_line_begun(bytes(rest[self._searched :]), len(rest), self._limits)
            else:
                self._heads.check_line(bytes(rest[:end]))
                self._line_checked = True
        if len(rest) > self._limits.head:
            raise Refusal(431, f"the head is longer than {self._limits.head} bytes")
