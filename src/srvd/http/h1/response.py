"""Checks what an application says its response is, and turns it into bytes: status, fields, framing.

Knows neither the application's calling convention nor the socket. Pure, but for bounded memories of what was seen.
"""

from __future__ import annotations

import re
import sys
from enum import Enum
from typing import NamedTuple

__all__ = [
    "CONTINUE",
    "BodyFraming",
    "Fields",
    "Framing",
    "Opening",
    "ResponseInvalid",
    "Status",
    "check_fields",
    "check_status",
    "open_response",
]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Asks a client for the body that it keeps back (RFC 9110 section 10.1.1)."""

# RFC 9112 section 4: three digits, a space, a reason phrase that may be empty.
_STATUS = re.compile(r"([2-5][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MOST_DIGITS = 18
_MOST_SEEN = 1024
_LONGEST_SEEN = 64
_MOST_FIELDS_SEEN = 256
_LONGEST_FIELDS_SEEN = 512


class ResponseInvalid(Exception):
    """The application's response breaks the protocol; nothing of it goes on the wire."""


class Status(NamedTuple):
    code: int
    line: bytes  # "HTTP/1.1 200 OK\r\n"
    bodiless: bool  # 204 and 304 have no body, whatever the application gives

    @property
    def spelled(self) -> str:
        """The status as the application spelt it: "200 OK"."""
        return self.line[9:].rstrip().decode("latin-1")


class _Kind(Enum):
    """What a field name means to us."""

    PLAIN = "plain"
    LENGTH = "content-length"
    DATE = "date"
    SERVER = "server"
    HOP = "hop-by-hop"


_PLAIN = _Kind.PLAIN

_KNOWN: dict[str, _Kind] = {
    "content-length": _Kind.LENGTH,
    "date": _Kind.DATE,
    "server": _Kind.SERVER,
    # RFC 9110 section 7.6.1 and PEP 3333, "Other HTTP Features": the connection is the server's. A view that passes on
    # what another server said has them, so they are left out of the head, and their names kept for a warning.
    "connection": _Kind.HOP,
    "keep-alive": _Kind.HOP,
    "proxy-authenticate": _Kind.HOP,
    "proxy-authorization": _Kind.HOP,
    "proxy-connection": _Kind.HOP,
    "te": _Kind.HOP,
    "trailer": _Kind.HOP,
    "trailers": _Kind.HOP,
    "transfer-encoding": _Kind.HOP,
    "upgrade": _Kind.HOP,
}
_statuses: dict[str, Status] = {}
_kinds: dict[str, _Kind] = {}
"""Good names, as spelt by applications."""
_fields: dict[tuple[tuple[str, str], ...], Fields] = {}
"""Good headers: an application says the same again and again."""


class Fields(NamedTuple):
    """The application's fields, checked and written."""

    text: bytes  # "Name: value\r\n" …, without Content-Length
    length: int  # of Content-Length; -1: none was given
    dated: bool
    named: bool  # has a Server field
    end: bytes
    """How the head of a response of that length ends, if the connection is kept; b"" if more has to be thought of."""
    dropped: tuple[str, ...] = ()
    """Names that are not in `text`, because they speak of the connection."""

    @property
    def logged(self) -> str:
        """The application's fields, "Name: value\\r\\n" …, for the access log."""
        text = self.text.decode("latin-1")
        return text if self.length < 0 else f"{text}Content-Length: {self.length}\r\n"

    def stamped(self, stamp: bytes) -> bytes:
        """Returns the server's own lines, Server and Date, but for those that the application gave itself."""
        server, date = stamp.splitlines(keepends=True)
        return (b"" if self.named else server) + (b"" if self.dated else date)


class Framing(Enum):
    """How the client finds the end of the body (RFC 9112 section 6.3)."""

    NONE = "no body"
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    CLOSE = "the connection's end"


# An attribute of an enum costs one more lookup, for each block of a body.
_NONE, _LENGTH, _CHUNKED, _CLOSE = Framing.NONE, Framing.LENGTH, Framing.CHUNKED, Framing.CLOSE


class BodyFraming:
    """The body of one response, from the head to its end, whole or cut."""

    __slots__ = ("cut", "kind", "left")

    def __init__(self, kind: Framing, length: int) -> None:
        """`length`: of the body, for `Framing.LENGTH`."""
        self.kind = kind
        self.left = length if kind is _LENGTH else 0 if kind is _NONE else sys.maxsize
        """Bytes that may still come; sys.maxsize without a limit."""
        self.cut = False
        """Whether the response was ended before its body was complete."""

    @property
    def must_reset(self) -> bool:
        """Whether only a reset shows the client that the body is incomplete, since its end is the connection's end."""
        return self.cut and self.kind is _CLOSE

    @property
    def is_short(self) -> bool:
        """Whether bytes of Content-Length are missing, if the body ends here."""
        return self.left > 0 and self.kind is _LENGTH

    def block(self, data: bytes) -> bytes:
        """Returns one block as it goes on the wire, cut to what Content-Length allows; b"" if there is no body."""
        kind = self.kind
        if kind is _LENGTH:
            data = data[: self.left]
            self.left -= len(data)
            return data
        if kind is _CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return b"" if kind is _NONE else data

    def end(self) -> bytes:
        """Returns what goes on the wire behind the last block."""
        return b"0\r\n\r\n" if self.kind is _CHUNKED else b""


class Opening(NamedTuple):
    head: bytes
    framing: BodyFraming
    keep_alive: bool


def check_status(status: str) -> Status:
    """The status an application gave. Raises `ResponseInvalid` unless it is `200 OK`-like and final (2xx to 5xx)."""
    known = _statuses.get(status)
    if known is not None:
        return known
    match = _STATUS.fullmatch(status) if isinstance(status, str) else None
    if not match:
        raise ResponseInvalid(f"{status!r} is no status of a final response")
    code = int(match[1])
    status = match[0]  # a plain one: a subclass may write itself in another way, or hold on to more
    reason = status if len(status) > 3 else f"{status} "
    known = Status(code, f"HTTP/1.1 {reason}\r\n".encode("latin-1"), code in (204, 304))
    if len(_statuses) < _MOST_SEEN and len(status) <= _LONGEST_SEEN:
        _statuses[status] = known
    return known


def check_fields(headers: list[tuple[str, str]]) -> Fields:
    """The fields of a response, checked (RFC 9110 section 5) and written. Raises `ResponseInvalid`.

    Remembered by what they are now: the application may change its list, and give it once more.
    """
    try:
        given = tuple(headers)
    except TypeError as exc:
        raise ResponseInvalid(f"headers are no list of (str, str): {exc}") from exc
    try:
        known = _fields.get(given)
    except TypeError:  # pairs that are lists, say: good enough, but they cannot be looked up
        return _check(given)
    if known is not None:
        return known
    fields = _check(given)
    if len(fields.text) <= _LONGEST_FIELDS_SEEN:
        if len(_fields) >= _MOST_FIELDS_SEEN:
            _fields.clear()
        _fields[given] = fields
    return fields


def _check(headers: tuple[tuple[str, str], ...]) -> Fields:
    parts: list[str] = []
    length = -1
    dated = named = False
    dropped: tuple[str, ...] = ()
    try:
        for name, value in headers:
            kind = _kinds.get(name) or _kind_of(name)
            if kind is not _PLAIN:
                if kind is _Kind.LENGTH:
                    length = _length(value, length)
                    continue
                if kind is _Kind.HOP:
                    dropped += (str.lower(name),)
                    continue
                dated = dated or kind is _Kind.DATE
                named = named or kind is _Kind.SERVER
            parts += (name, ": ", value, "\r\n")
        text = "".join(parts)
    except (TypeError, ValueError) as exc:
        raise ResponseInvalid(f"headers are no list of (str, str): {exc}") from exc
    # One look at all of them: a line end or NUL inside any name or value (response splitting).
    lines = len(parts) >> 2
    if text.count("\n") != lines or text.count("\r") != lines or "\0" in text:
        raise ResponseInvalid("a header has CR, LF or NUL in it")
    try:
        written = text.encode("latin-1")
    except UnicodeEncodeError as exc:
        raise ResponseInvalid(f"a header has {text[exc.start]!r} in it, which is not latin-1") from exc
    end = b"" if length < 0 or dated or named else b"%bContent-Length: %d\r\n\r\n" % (written, length)
    return Fields(written, length, dated, named, end, dropped)


def _kind_of(name: object) -> _Kind:
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if not match:
        raise ResponseInvalid(f"{name!r} is no header name")
    name = match[0]  # as in check_status
    kind = _KNOWN.get(name.lower(), _Kind.PLAIN)
    if len(_kinds) < _MOST_SEEN and len(name) <= _LONGEST_SEEN:
        _kinds[name] = kind
    return kind


def _length(value: object, before: int) -> int:
    # Both: isdigit alone takes superscripts, and digits of other scripts.
    if not isinstance(value, str) or not (value.isdigit() and value.isascii() and len(value) <= _MOST_DIGITS):
        raise ResponseInvalid(f"Content-Length {value!r} is no length")
    length = int(value)
    if before not in (-1, length):  # RFC 9110 section 8.6: twice the same may be merged
        raise ResponseInvalid(f"Content-Length is given twice, as {before} and as {length}")
    return length


def open_response(
    status: Status, fields: Fields, stamp: bytes, head_only: bool, minor: int, keep_alive: bool, whole: int = -1
) -> Opening:
    """The head of a response and how its body is framed.

    `whole` is the body's length if all of it is known now, else -1. `keep_alive` is what client and server wish; the
    framing may decide against it.
    """
    framing = _framing_of(status, fields, head_only, minor, whole)
    length = fields.length
    if status.code == 204:  # RFC 9110 section 8.6
        length = -1
    elif length < 0 and not status.bodiless and (whole > 0 or framing is _LENGTH):
        length = whole  # of a HEAD: what GET would say; nothing at all tells nothing
    keep_alive = keep_alive and framing is not _CLOSE
    frame = b"Content-Length: %d\r\n" % length if length >= 0 else b""
    if framing is _CHUNKED:
        frame = b"Transfer-Encoding: chunked\r\n"
    if not keep_alive:
        frame += b"Connection: close\r\n"
    elif minor == 0:
        frame += b"Connection: keep-alive\r\n"
    if fields.dated or fields.named:
        stamp = fields.stamped(stamp)
    head = b"%b%b%b%b\r\n" % (status.line, stamp, fields.text, frame)
    return Opening(head, BodyFraming(framing, fields.length if fields.length >= 0 else whole), keep_alive)


def _framing_of(status: Status, fields: Fields, head_only: bool, minor: int, whole: int) -> Framing:
    if status.bodiless or head_only:
        return _NONE
    if fields.length >= 0 or whole >= 0:
        return _LENGTH
    return _CHUNKED if minor == 1 else _CLOSE
