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
_MOST_SECTIONS = 256
_LONGEST_SECTION = 2048
_MOST_HOSTS = 64
# After one of these, and with a path as its target, llhttp takes every request line that the guard takes.
_COMMON_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class Request:
    """A head that was accepted. `length` is the body's in bytes, or `guard.CHUNKED`."""

    __slots__ = ("environ", "expects", "keep_alive", "label", "length", "line", "method", "minor", "whole")

    def __init__(self, environ: Environ, line: _Line, section: _Section) -> None:
        self.environ = environ
        self.method = line.method
        self.label = line.label
        self.line = line.line
        self.minor = line.minor
        self.length = section.length
        self.keep_alive = section.keep_alive
        self.expects = section.expects
        """The client waits for a 100 (Continue) before it sends the body."""
        self.whole = b""
        """The body, if it came together with the head and nothing came after it."""

    def __repr__(self) -> str:
        return f"<Request {self.label} HTTP/1.{self.minor} length {self.length}>"


class _Line:
    """What one request line comes to."""

    __slots__ = ("authority", "base", "label", "line", "method", "minor", "sections")

    def __init__(self, parts: guard.Line) -> None:
        self.base: Environ = {
            "REQUEST_METHOD": parts.method,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "RAW_URI": parts.target,
            "SERVER_PROTOCOL": f"HTTP/1.{parts.minor}",
        }
        self.method = parts.method
        self.label = f"{parts.method} {parts.target}"  # for the log
        # For the scoreboard, and so for whoever may look at it: without the query, in which a token may be.
        self.line = self.label.partition("?")[0].encode("ascii")
        self.minor = parts.minor
        self.authority = (parts.scheme, parts.authority) if parts.authority else None
        self.sections: dict[bytes, _Section] = {}
        """Those that need no further look after this line; none while llhttp might still refuse the line."""


class _Section(NamedTuple):
    """What one header section comes to, after a line of one version."""

    fields: Environ  # the keys of the environ that it gives
    length: int
    keep_alive: bool
    expects: bool


class HeadReader:
    """Reads heads, one after another, of any connection: each comes whole, so one parser serves them all.

    A client says the same with each request on its connection, but for the request line. What a header section comes
    to follows from its bytes and the version alone, so it is kept, and so is what a line comes to: llhttp and the guard
    look at what was not seen before.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._surely_fits = min(limits.head, limits.field)
        self._parser = HttpRequestParser(self)
        self._fields: Environ = {}
        self._reusable: bool | None = None  # llhttp saw the head's end, and can read another after it
        self._refusal: Refusal | None = None
        self._unlisted = 0  # fields that did not become an entry of the environ: dropped, or joined to one
        self._lines: dict[bytes, _Line] = {}
        self._sections: tuple[dict[bytes, _Section], ...] = ({}, {})  # by the version's minor
        self._hosts: set[str] = set()

    def check_line(self, line: bytes) -> None:
        """Refuses a request line that will be refused anyway, before the fields have come."""
        guard.request_line(line, self.limits)

    def read(self, head: bytes, template: Environ) -> Request:
        """The request of `head`, which ends with its empty line. Raises `Refusal`.

        `template` is what every request of the connection has in its environ; it is copied.
        """
        end = head.index(b"\r\n")
        text = head[:end]
        line = self._lines.get(text) or self._see(text)
        if len(head) > self._surely_fits:
            guard.check_sizes(head, self.limits)
        text = head[end:]
        section = line.sections.get(text)
        if section is None:
            section = self._parse(head, line)
            line.sections = known = self._sections[line.minor]
            if len(text) <= _LONGEST_SECTION:
                if len(known) >= _MOST_SECTIONS:
                    known.clear()
                known[text] = section
        environ = {**template, **line.base, **section.fields}
        if line.authority is not None:
            scheme, authority = line.authority
            if scheme != environ["wsgi.url_scheme"]:
                raise Refusal(421, "the target's scheme is not the connection's")
            environ["HTTP_HOST"] = authority  # RFC 9112 section 3.2.2
        return Request(environ, line, section)

    def _parse(self, head: bytes, line: _Line) -> _Section:
        """The section of a head that was not seen before, or not after a line that llhttp knows."""
        fields = self._fields = {}
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
        if len(fields) + self._unlisted > self.limits.fields:
            self._refusal = Refusal(431, f"more than {self.limits.fields} fields")
            raise self._broken(None)
        if b" \r\n" in head or (b"\t" in head and b"\t\r\n" in head):
            _strip(fields)
        if not self._reusable or "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields:
            # This parser waits for a body (which does not go through it), or for nothing more.
            self._parser = HttpRequestParser(self)
        return self._judge(fields, line.minor)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by llhttp for each field."""
        key = KEYS.get(name)
        if key is None:
            key = environ_key(name)
            if key is None:
                if b"_" in name and not self.limits.underscores:
                    self._refusal = Refusal(400, "a field name with an underscore")
                    raise self._refusal
                self._unlisted += 1
                return
        fields = self._fields
        if key in fields:
            self._repeated(key, value)
        else:
            fields[key] = value.decode("latin-1")

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
        before = self._fields[key].rstrip(" \t")
        self._fields[key] = f"{before}{comma}{value.decode('latin-1')}"

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

    def _see(self, text: bytes) -> _Line:
        parts = guard.request_line(text, self.limits)
        line = _Line(parts)
        if parts.method in _COMMON_METHODS and parts.target[0] == "/":
            line.sections = self._sections[parts.minor]
        if len(text) <= _LONGEST_LINE:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            self._lines[text] = line
        return line

    def _judge(self, fields: Environ, minor: int) -> _Section:
        """The rules on the values of fields, in the order in which they are worth an answer."""
        host = fields.get("HTTP_HOST")
        if host not in self._hosts:
            self._check_host(host, minor)
        length = 0
        expects = False
        keep_alive = minor == 1
        if (value := fields.get("CONTENT_LENGTH")) is not None:
            length = guard.content_length(value, self.limits)
        if (value := fields.get("HTTP_TRANSFER_ENCODING")) is not None:
            length = guard.transfer_coding(value, minor, lengthy="CONTENT_LENGTH" in fields)
        if (value := fields.get("HTTP_CONNECTION")) is not None:
            keep_alive = guard.persistent(value, minor)
        if (value := fields.get("HTTP_EXPECT")) is not None:
            expects = guard.expects_continue(value, minor) and length != 0
        return _Section(fields, length, keep_alive, expects)

    def _check_host(self, host: str | None, minor: int) -> None:
        if host is None:
            if minor == 1:
                raise Refusal(400, "no Host")
            return
        guard.check_host(host)
        if len(self._hosts) >= _MOST_HOSTS:
            self._hosts.clear()
        self._hosts.add(host)


def _strip(fields: Environ) -> None:
    """Takes the white space off the ends of values, which llhttp leaves there (RFC 9110 section 5.5)."""
    for key, value in fields.items():
        if value[-1:] in ("", " ", "\t"):
            fields[key] = value.rstrip(" \t")
