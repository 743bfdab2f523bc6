"""Reads header sections of usual lines, by what was remembered of each line.

A client repeats most of its lines, even if no two of its requests are alike. A line is usual if it is written as RFC
9112 section 5 says, and if llhttp would take its field whatever the other fields are. A section with any other line, or
with a name that comes twice, is left to llhttp, which so remains the judge of all that is odd. Pure, but for a bounded
memory.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from srvd.http.h1.sink import Sink

__all__ = ["Field", "Marks", "UsualLines"]

_MOST_LINES = 1024
_MOST_NAMES = 1024
_LONGEST_NAME = 64
_LONGEST_LINE = 256
_MOST_MARKS = 2048

# A name with an underscore is not usual: such fields are dropped, or refused.
_NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]+")
_IN_A_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_USUAL_VALUE = {
    b"connection": re.compile(b"keep-alive|close", re.IGNORECASE),
    b"content-length": re.compile(b"[0-9]{1,18}"),
}
# llhttp has rules for these, some of them about several fields.
_NEVER_USUAL = frozenset({b"transfer-encoding", b"upgrade", b"proxy-connection"})
# Lines that may have a secret in them are read anew each time, so that none stays in memory for its line's sake.
_SECRET = frozenset({
    b"authorization", b"cookie", b"if-match", b"if-none-match", b"proxy-authorization", b"referer", b"x-api-key",
    b"x-auth-token", b"x-csrf-token", b"x-csrftoken", b"x-xsrf-token",
})  # fmt: skip


Field = tuple[bytes, Any, bytes, bytes]
"""What a line comes to: its name in lower case, its part of a scope (`Sink.field`), its name as received, and its
value, which is never empty. A plain tuple, since nearly each request makes some.
"""


class _Name(NamedTuple):
    lower: bytes
    usual: re.Pattern[bytes] | None
    """The values with which a line of this name is usual; None: all values that are well written."""
    public: bool
    """Whether a line of this name holds no secret, and so may be remembered."""


class Marks:
    """Remembers what has come lately, by its hash: what comes once only is not worth its place in a memory."""

    def __init__(self) -> None:
        self._marks: set[int] = set()

    def came_before(self, text: bytes) -> bool:
        """Tells whether `text` came before, and marks it."""
        mark = hash(text)
        marks = self._marks
        if mark in marks:
            return True
        if len(marks) >= _MOST_MARKS:
            marks.clear()
        marks.add(mark)
        return False


class _Unusual(Exception):
    """The section is one for llhttp."""


class UsualLines(dict[bytes, Field]):
    """The lines of one reader that came before. Looking up another one reads it."""

    def __init__(self, sink: Sink) -> None:
        self._field = sink.field
        self._names: dict[bytes, _Name] = {}  # as received
        self._marks = Marks()

    def read(self, text: bytes) -> dict[bytes, Field] | None:
        """The fields of `text`, all of a head that is behind its request line, by their names in lower case. None: the
        section is one for llhttp.
        """
        lines = text[2:-4].split(b"\r\n")
        try:
            fields = {field[0]: field for field in map(self.__getitem__, lines)}
        except _Unusual:
            return None
        return fields if len(fields) == len(lines) else None

    def __missing__(self, line: bytes) -> Field:
        name, _, value = line.partition(b":")
        lower, usual, public = self._names.get(name) or self._see(name)
        value = value.strip(b" \t")
        if not value or value.translate(None, _IN_A_VALUE) or (usual is not None and not usual.fullmatch(value)):
            raise _Unusual
        field = (lower, self._field(name, value), name, value)
        if public and len(line) <= _LONGEST_LINE and self._marks.came_before(line):
            if len(self) >= _MOST_LINES:
                self.clear()
            self[line] = field
        return field

    def _see(self, name: bytes) -> _Name:
        lower = name.lower()
        if lower in _NEVER_USUAL or not _NAME.fullmatch(name):
            raise _Unusual
        seen = _Name(lower, _USUAL_VALUE.get(lower), lower not in _SECRET)
        if len(self._names) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
            self._names[name] = seen
        return seen
