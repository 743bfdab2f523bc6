"""Turns the bytes of one request head into a `Request`, whose environ is built while llhttp reads the fields.

Knows neither the connection nor the body. One `HeadReader` a thread: it owns a parser, and some memory of request
lines and hosts that were seen. Pure.

The guard reads the request line, llhttp the fields. llhttp knows some forty methods and refuses all others; any token
is a method (RFC 9110 section 9.1), and only the application knows which ones it serves. So llhttp gets the fields
behind a line of ours, which differs in its version only: what a section comes to does not depend on the method.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from srvd.http.h1 import guard
from srvd.http.h1.limits import Limits
from srvd.http.h1.names import KEYS, environ_key
from srvd.http.h1.refusal import Refusal

__all__ = ["Environ", "HeadReader", "Request"]

Environ = dict[str, Any]

_ONCE = frozenset({"HTTP_HOST", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_TRANSFER_ENCODING"})
_MOST_LINES = 512
_LONGEST_LINE = 256
_MOST_SECTIONS = 256
_LONGEST_SECTION = 2048
_MOST_HOSTS = 64
_LINES = (b"GET / HTTP/1.0", b"GET / HTTP/1.1")  # in the place of the client's, by the version's minor
# RFC 9110 section 5.5: white space before the end of a line is no part of the value. llhttp leaves it there, and takes
# a tab behind "chunked" for another coding. Never a line of nothing else: that is a folded one, and refused.
_TRAILING_SPACE = re.compile(rb"(?<=[^\r\n\t ])[\t ]+(?=\r\n)")


class Request:
    """A head that was accepted. `length` is the body's in bytes, or `guard.CHUNKED`."""

    __slots__ = ("environ", "expects", "keep_alive", "label", "length", "line", "method", "minor", "whole")

    def __init__(self, environ: Environ, line: _Line, section: _Section) -> None:
        self.environ = environ
        self.method = line.method
        self.label = line.label
        """Method and path, for messages: without the query, in which a token may be."""
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

    __slots__ = ("authority", "base", "label", "line", "method", "minor", "scheme", "sections")

    def __init__(self, parts: guard.Line, sections: dict[bytes, _Section]) -> None:
        self.base: Environ = {
            "REQUEST_METHOD": parts.method,
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "RAW_URI": parts.target,
            "SERVER_PROTOCOL": f"HTTP/1.{parts.minor}",
        }
        self.method = parts.method
        self.label = f"{parts.method} {parts.target.partition('?')[0]}"
        self.line = self.label.encode("ascii")  # for the scoreboard
        self.minor = parts.minor
        self.scheme, self.authority = parts.scheme, parts.authority
        self.sections = sections  # of all lines of this version


class _Section(NamedTuple):
    """What one header section comes to, after a line of one version."""

    fields: Environ  # the keys of the environ that it gives
    length: int
    keep_alive: bool
    expects: bool


class HeadReader:
    """Reads heads, one after another, of any connection: each comes whole, so one parser serves them all.

    `introduce` is given each environ before the request is complete, to put the client in the place of a proxy.

    A client says the same with each request on its connection, but for the request line. What a header section comes
    to follows from its bytes and the version alone, so it is kept, and so is what a line comes to: llhttp and the guard
    look at what was not seen before.
    """

    def __init__(self, limits: Limits, introduce: Callable[[Environ], None] | None = None) -> None:
        self.limits = limits
        self._introduce = introduce
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
            section = self._parse(text, line.minor)
            known = line.sections
            if len(text) <= _LONGEST_SECTION:
                if len(known) >= _MOST_SECTIONS:
                    known.clear()
                known[text] = section
        environ = {**template, **line.base, **section.fields}
        if line.authority:
            environ["HTTP_HOST"] = line.authority  # RFC 9112 section 3.2.2
        if self._introduce is not None:
            self._introduce(environ)
        # Only now: the client may speak https to a proxy that is trusted to say so.
        if line.scheme and line.scheme != environ["wsgi.url_scheme"]:
            raise Refusal(421, "the target's scheme is not the connection's")
        return Request(environ, line, section)

    def _parse(self, text: bytes, minor: int) -> _Section:
        """The section of a head that was not seen before: all that is behind the request line."""
        fields = self._fields = {}
        self._unlisted = 0
        self._reusable = None
        if b" \r\n" in text or b"\t\r\n" in text:
            text = _TRAILING_SPACE.sub(b"", text)
        try:
            self._parser.feed_data(_LINES[minor] + text)
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
        if not self._reusable or "CONTENT_LENGTH" in fields or "HTTP_TRANSFER_ENCODING" in fields:
            # This parser waits for a body (which does not go through it), or for nothing more.
            self._parser = HttpRequestParser(self)
        return self._judge(fields, minor)

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
        self._fields[key] = f"{self._fields[key]}{comma}{value.decode('latin-1')}"

    def _broken(self, exc: Exception | None) -> Refusal:
        self._parser = HttpRequestParser(self)
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            return refusal
        return Refusal(400, "malformed fields" if exc is None else str(exc))

    def _see(self, text: bytes) -> _Line:
        parts = guard.request_line(text, self.limits)
        line = _Line(parts, self._sections[parts.minor])
        if len(text) <= _LONGEST_LINE:
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            self._lines[text] = line
        return line

    def _judge(self, fields: Environ, minor: int) -> _Section:
        """The rules on the values of fields, in the order in which they are worth an answer."""
        host = fields.get("HTTP_HOST")
        if host == "":
            # RFC 9110 section 7.2: what a client says that knows no name, as health checks do. An application then
            # finds what it finds without the field, SERVER_NAME; an empty name is none that a framework allows.
            del fields["HTTP_HOST"]
        elif host not in self._hosts:
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
