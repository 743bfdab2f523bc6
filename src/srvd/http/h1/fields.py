"""Reads header sections with llhttp.

llhttp knows some forty methods and refuses all others; any token is a method (RFC 9110 section 9.1), and only the
application knows which ones it serves. So llhttp gets the fields behind a line of ours, which differs in its version
only: what a section comes to does not depend on the method. Judges no names and no values. Pure.
"""

from __future__ import annotations

import re
from contextlib import suppress

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Fields

__all__ = ["FieldParser"]

_LINES = (b"GET / HTTP/1.0", b"GET / HTTP/1.1")  # in the place of the client's, by the version's minor
# RFC 9110 section 5.5: white space before the end of a line is no part of the value. Never a line of nothing else: that
# is a folded one, and refused.
_TRAILING_SPACE = re.compile(rb"(?<=[^\r\n\t ])[\t ]+(?=\r\n)")


class FieldParser:
    """One parser of llhttp, for many sections, one after another. What it holds is of the section read last."""

    def __init__(self) -> None:
        self.found: dict[bytes, bytes] = {}
        """The fields, each name once, as received. Cleared by the next `read`."""
        self.ended: bool | None = None
        """Whether llhttp can read another section: False if it waits for something else; None if it has not seen the
        end of this one.
        """
        self.on_header = self.found.__setitem__
        """Called by llhttp for each field, with name and value. A function of Python would take longer than llhttp."""
        self.renew()

    def renew(self) -> None:
        """Begins anew with the next section. Needed if llhttp waits for a body, which does not go through it."""
        self._llhttp = HttpRequestParser(self)

    def read(self, text: bytes, minor: int) -> Fields:
        """The fields of `text`: all of a head of HTTP/1.`minor` that is behind its request line. Raises `Refusal`."""
        found = self.found
        found.clear()
        self.ended = None
        try:
            self._llhttp.feed_data(_LINES[minor] + text)
        except HttpParserUpgrade:
            # RFC 9110 section 7.8: an Upgrade may be ignored. What follows is this request's body, or the next
            # request; llhttp would take it for another protocol.
            self.ended = False
        except HttpParserError as exc:
            self.renew()
            # llhttp leaves white space behind a value, and takes a tab behind "chunked" for another coding.
            trimmed = _TRAILING_SPACE.sub(b"", text)
            if trimmed == text:
                raise Refusal(400, str(exc)) from None
            return self.read(trimmed, minor)
        # Each field ends a line, so no name came twice if there are as many names as lines before the empty one.
        return found.items() if len(found) == text.count(b"\n") - 2 else _each_field(text, minor)

    def on_headers_complete(self) -> None:
        """Called by llhttp after the empty line."""
        # Asked here because llhttp forgets it right after.
        self.ended = self._llhttp.should_keep_alive()


class _FieldList:
    """Takes each field from llhttp, also those whose names came before."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def _each_field(text: bytes, minor: int) -> Fields:
    """The fields of a section that llhttp has accepted, or has not seen the end of."""
    collected = _FieldList()
    with suppress(HttpParserUpgrade):
        HttpRequestParser(collected).feed_data(_LINES[minor] + text)
    return collected.fields
