"""Turns the bytes of one request head into a `Request`, whose environ is built while llhttp reads the fields.

Knows neither the connection nor the body. One `HeadReader` a thread: it owns a parser, and some memory of request
lines and hosts that were seen. Pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from srvd.http import guard
from srvd.http.limits import Limits
from srvd.http.names import KEYS, environ_key
from srvd.http.refusal import Refusal

__all__ = ["Environ", "HeadReader", "Request"]

Environ = dict[str, Any]

_ONCE = frozenset({"HTTP_HOST", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING"})
_MOST_LINES = 512
_LONGEST_LINE = 256
_MOST_HOSTS = 64


class Request:
    """A head that was accepted. `length` is the body's in bytes, or `guard.CHUNKED`."""

    __slots__ = ("environ", "expects", "keep_alive", "label", "length", "method", "minor")

    def __init__(self, environ: Environ, seen: _Seen, length: int, keep_alive: bool, expects: bool) -> None:
        self.environ = environ
        self.method = seen.method
        self.label = seen.label
        self.minor = seen.minor
        self.length = length
        self.keep_alive = keep_alive
        self.expects = expects  # a 100 (Continue) is waited for

    def __repr__(self) -> str:
        return f"<Request {self.label} HTTP/1.{self.minor} length {self.length}>"


class _Seen(NamedTuple):
    """What one request line comes to; kept, because the same lines come again and again."""

    base: Environ  # the keys of the environ that the line gives
    method: str
    label: str  # "GET /path?query", for the scoreboard and the log
    minor: int
    authority: str
    scheme: str


class HeadReader:
    """Reads heads, one after another, of any connection: each comes whole, so one parser serves them all."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._parser = HttpRequestParser(self)
        self._environ: Environ = {}
        self._reusable: bool | None = None  # llhttp saw the head's end, and can read another after it
        self._refusal: Refusal | None = None
        self._unlisted = 0  # fields that did not become an entry of the environ: dropped, or joined to one
        self._lines: dict[bytes, _Seen] = {}
        self._hosts: set[str] = set()

    def check_line(self, line: bytes) -> None:
        """Refuses a request line that will be refused anyway, before the fields have come."""
        guard.request_line(line, self.limits)

    def read(self, head: bytes, template: Environ) -> Request:
        """The request of `head`, which ends with its empty line. Raises `Refusal`.

        `template` is what every request of the connection has in its environ; it is copied.
        """
        line = head[: head.index(b"\r\n")]
        seen = self._lines.get(line) or self._see(line)
        limits = self.limits
        if len(head) > limits.field:
            guard.check_sizes(head, limits)
        environ = self._environ = template | seen.base
        fields_at_most = len(environ) + limits.fields
        self._unlisted = 0
        self._reusable = None
        try:
            self._parser.feed_data(head)
        except HttpParserUpgrade:
            # RFC 9110 section 7.8: an Upgrade may be ignored. What follows is this request's body, or the next
            # request; llhttp would take it for another protocol.
            self._reusable = False
        except HttpParserError as exc:
            raise self._broken(exc) from None
        if self._reusable is None:
            raise self._broken(None)
        if len(environ) + self._unlisted > fields_at_most:
            self._refusal = Refusal(431, f"more than {limits.fields} fields")
            raise self._broken(None)
        if b" \r\n" in head or (b"\t" in head and b"\t\r\n" in head):
            _strip(environ)
        if not self._reusable or "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ:
            # This parser waits for a body (which does not go through it), or for nothing more.
            self._parser = HttpRequestParser(self)
        return self._judge(environ, seen)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp for each field."""
        key = KEYS.get(name)
        if key is None:
            key = environ_key(name)
            if key is None:
                self._unlisted += 1
                return
        environ = self._environ
        if key in environ:
            self._repeated(key, value)
        else:
            environ[key] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by llhttp after the empty line."""
        # Asked here because llhttp forgets it right after.
        self._reusable = self._parser.should_keep_alive()

    def _repeated(self, key: str, value: bytes) -> None:
        if key in _ONCE:
            self._refusal = Refusal(400, f"{key} more than once")
            raise self._refusal
        self._unlisted += 1
        # RFC 9110 section 5.3; cookies are the exception of RFC 9113 section 8.2.3.
        comma = "; " if key == "HTTP_COOKIE" else ","
        # The white space after the former value would end up within the joined one, where _strip does not find it.
        before = self._environ[key].rstrip(" \t")
        self._environ[key] = f"{before}{comma}{value.decode('latin-1')}"

    def _broken(self, exc: Exception | None) -> Refusal:
        self._parser = HttpRequestParser(self)
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            return refusal
        if isinstance(exc, HttpParserInvalidMethodError) or exc is None:
            return Refusal(501, "a method that is not known")
        reason = str(exc)
        if reason.startswith("Invalid method"):  # one of RTSP, in an HTTP request
            return Refusal(501, "a method that is not known")
        return Refusal(400, reason)

    def _see(self, line: bytes) -> _Seen:
        parts = guard.request_line(line, self.limits)
        base = {
            "REQUEST_METHOD": parts.method,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "RAW_URI": parts.target,
            "SERVER_PROTOCOL": f"HTTP/1.{parts.minor}",
        }
        seen = _Seen(base, parts.method, f"{parts.method} {parts.target}", parts.minor, parts.authority, parts.scheme)
        if len(line) <= _LONGEST_LINE:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            self._lines[line] = seen
        return seen

    def _judge(self, environ: Environ, seen: _Seen) -> Request:
        """The rules on the values of fields, in the order in which they are worth an answer."""
        minor = seen.minor
        host = environ.get("HTTP_HOST")
        if host not in self._hosts:
            self._check_host(host, minor)
        if seen.authority:
            if seen.scheme != environ["wsgi.url_scheme"]:
                raise Refusal(421, "the target's scheme is not the connection's")
            environ["HTTP_HOST"] = seen.authority  # RFC 9112 section 3.2.2
        length = 0
        expects = False
        keep_alive = minor == 1
        if (value := environ.get("CONTENT_LENGTH")) is not None:
            length = guard.content_length(value, self.limits)
        if (value := environ.get("HTTP_TRANSFER_ENCODING")) is not None:
            length = guard.transfer_coding(value, minor, lengthy="CONTENT_LENGTH" in environ)
        if (value := environ.get("HTTP_CONNECTION")) is not None:
            keep_alive = guard.persistent(value, minor)
        if (value := environ.get("HTTP_EXPECT")) is not None:
            expects = guard.expects_continue(value, minor) and length != 0
        return Request(environ, seen, length, keep_alive, expects)

    def _check_host(self, host: str | None, minor: int) -> None:
        if host is None:
            if minor == 1:
                raise Refusal(400, "no Host")
            return
        guard.check_host(host)
        if len(self._hosts) >= _MOST_HOSTS:
            self._hosts.clear()
        self._hosts.add(host)


def _strip(environ: Environ) -> None:
    """Takes the white space off the ends of values, which llhttp leaves there (RFC 9110 section 5.5)."""
    for key, value in environ.items():
        if type(value) is str and value[-1:] in ("", " ", "\t"):
            environ[key] = value.rstrip(" \t")
