"""Turns the bytes of one request head into a `Request`, whose scope is made by the sink of a calling convention.

Knows neither the connection nor the body. One `HeadReader` a thread: it owns a parser, and some memory of request
lines and hosts that were seen. Pure.

The guard reads the request line, llhttp the fields (`fields.py`), unless all of them are usual (`lines.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from srvd.http.h1 import guard
from srvd.http.h1.fields import FieldParser
from srvd.http.h1.limits import Limits
from srvd.http.h1.lines import Marks, UsualLines
from srvd.http.h1.names import FieldNames
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Client, Fields, Scope, Sink

__all__ = ["HeadReader", "Request"]

_MOST_LINES = 512
_LONGEST_LINE = 256
_MOST_SECTIONS = 256
_LONGEST_SECTION = 2048
_MOST_HOSTS = 64
_JUDGED = (b"host", b"content-length", b"connection", b"expect")
"""The usual fields on whose values there is a rule."""


class Request:
    """A head that was accepted. `length` is the body's in bytes, or `guard.CHUNKED`."""

    __slots__ = ("expects", "keep_alive", "length", "line", "method", "minor", "scope", "whole")

    def __init__(self, scope: Scope, line: _Line, section: _Section) -> None:
        self.scope = scope
        self.method = line.method
        self.line = line.line
        """Method and path, for the scoreboard and for messages: without the query, in which a token may be."""
        self.minor = line.minor
        self.length = section.length
        self.keep_alive = section.keep_alive
        self.expects = section.expects
        """The client waits for a 100 (Continue) before it sends the body."""
        self.whole = b""
        """The body, if it came together with the head and nothing came after it."""

    @property
    def label(self) -> str:
        """`line` as text."""
        return self.line.decode("ascii")

    def __repr__(self) -> str:
        return f"<Request {self.label} HTTP/1.{self.minor} length {self.length}>"


class _Line:
    """What one request line comes to."""

    __slots__ = ("authority", "line", "method", "minor", "scheme", "scope", "sections")

    def __init__(self, text: bytes, parts: guard.Line, scope: Scope, sections: dict[bytes, _Section]) -> None:
        self.scope = scope
        self.method = parts.method
        self.line = text[: -len(b" HTTP/1.1")].partition(b"?")[0]
        self.minor = parts.minor
        self.scheme, self.authority = parts.scheme, parts.authority
        self.sections = sections  # of all lines of this version


class _Section(NamedTuple):
    """What one header section comes to, after a line of one version."""

    scope: Scope
    client: Client | None  # None: no proxy speaks for a client
    length: int
    keep_alive: bool
    expects: bool


Introduce = Callable[[Fields], tuple[Fields, Client | None]]
"""Separates what a proxy says of its client from the other fields. Raises `Refusal`."""


class HeadReader:
    """Reads heads, one after another, of any connection: each comes whole, so one parser serves them all.

    `sink` makes the scopes; `introduce` is given the fields of each section before the sink.

    A client says the same with each request on its connection, but for the request line. What a header section comes
    to follows from its bytes and the version alone, so it is kept, and so is what a line comes to: llhttp and the guard
    look at what was not seen before.
    """

    def __init__(self, limits: Limits, sink: Sink, introduce: Introduce | None = None) -> None:
        self.limits = limits
        self.sink = sink
        self._introduce = introduce
        self._surely_fits = min(limits.head, limits.field)
        self._usual = UsualLines(sink)
        self._names = FieldNames(underscores=limits.underscores)
        self._parser = FieldParser()
        self._lines: dict[bytes, _Line] = {}
        self._sections: tuple[dict[bytes, _Section], ...] = ({}, {})  # by the version's minor
        self._hosts: set[bytes] = set()
        self._marks = Marks()  # of request lines and sections

    def check_line(self, line: bytes) -> None:
        """Refuses a request line that will be refused anyway, before the fields have come."""
        guard.request_line(line, self.limits)

    def read(self, head: bytes, template: Scope) -> Request:
        """The request of `head`, which ends with its empty line. Raises `Refusal`.

        `template` is what every request of the connection has in its scope (`Sink.connection`); it is copied.
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
            if len(text) <= _LONGEST_SECTION and self._marks.came_before(text):
                known = line.sections
                if len(known) >= _MOST_SECTIONS:
                    known.clear()
                known[text] = section
        scope = {**template, **line.scope, **section.scope}
        if line.authority:
            self.sink.put_host(scope, line.authority)  # RFC 9112 section 3.2.2
        if section.client is not None:
            self.sink.put_client(scope, section.client)
        # Only now: the client may speak https to a proxy that is trusted to say so.
        if line.scheme and line.scheme != self.sink.scheme(scope):
            raise Refusal(421, "the target's scheme is not the connection's")
        return Request(scope, line, section)

    def _parse(self, text: bytes, minor: int) -> _Section:
        """The section of a head that was not seen before: all that is behind the request line."""
        fields: Fields
        usual = self._usual.read(text)
        if usual is None or len(usual) > self.limits.fields:
            fields, control = self._read_by_llhttp(text, minor)
            judged = self._judge(control, minor)
        else:
            judged = self._judge({name: usual[name][3] for name in _JUDGED if name in usual}, minor)
            if self._introduce is None:
                return _Section(self.sink.section([part for _, part, _, _ in usual.values()]), None, *judged)
            fields = [(name, value) for _, _, name, value in usual.values()]
        client = None
        if self._introduce is not None:
            fields, client = self._introduce(fields)
        return _Section(self.sink.fields(fields), client, *judged)

    def _read_by_llhttp(self, text: bytes, minor: int) -> tuple[Fields, dict[bytes, bytes]]:
        """The fields that the application may find, and those on whose values there are rules."""
        parser = self._parser
        fields = parser.read(text, minor)
        try:
            allowed, control = self._names.sort(fields, parser.found)
        except Refusal:
            parser.renew()
            raise
        ended = parser.ended
        if not ended or b"content-length" in control or b"transfer-encoding" in control:
            parser.renew()
        if ended is None:
            raise Refusal(400, "malformed fields")
        if len(fields) > self.limits.fields:
            raise Refusal(431, f"more than {self.limits.fields} fields")
        return allowed, control

    def _see(self, text: bytes) -> _Line:
        parts = guard.request_line(text, self.limits)
        line = _Line(text, parts, self.sink.line(parts), self._sections[parts.minor])
        if len(text) <= _LONGEST_LINE and self._marks.came_before(text):
            if len(self._lines) >= _MOST_LINES:
                self._lines.clear()
            self._lines[text] = line
        return line

    def _judge(self, control: dict[bytes, bytes], minor: int) -> tuple[int, bool, bool]:
        """The rules on the values of fields, in the order in which they are worth an answer. Returns the last three
        parts of a `_Section`.
        """
        host = control.get(b"host")
        if host not in self._hosts and host != b"":
            self._check_host(host, minor)
        length = 0
        expects = False
        keep_alive = minor == 1
        if (value := control.get(b"content-length")) is not None:
            length = guard.content_length(value.decode("latin-1"), self.limits)
        if (value := control.get(b"transfer-encoding")) is not None:
            length = guard.transfer_coding(value.decode("latin-1"), minor, lengthy=b"content-length" in control)
        if (value := control.get(b"connection")) is not None:
            keep_alive = guard.persistent(value.decode("latin-1"), minor)
        if (value := control.get(b"expect")) is not None:
            expects = guard.expects_continue(value.decode("latin-1"), minor) and length != 0
        return length, keep_alive, expects

    def _check_host(self, host: bytes | None, minor: int) -> None:
        if host is None:
            if minor == 1:
                raise Refusal(400, "no Host")
            return
        guard.check_host(host.decode("latin-1"))
        if len(self._hosts) >= _MOST_HOSTS:
            self._hosts.clear()
        self._hosts.add(host)
