"""Takes a request's body out of the bytes of a connection: counted by its Content-Length, or in chunks.

Not a store: what it finds is handed on at once, nothing but an unfinished chunk line is kept. Pure.

llhttp could decode chunks too, but it neither stops after a message nor says where the message ended, and it has no
limits; here the bytes after the body stay untouched, and every line is bounded.
"""

from __future__ import annotations

import re
from enum import Enum

from srvd.http.h1.limits import Limits
from srvd.http.h1.refusal import Refusal

__all__ = ["Body", "ChunkedBody", "CountedBody"]

# RFC 9112 sections 7.1 and 7.1.1: chunk-size [chunk-ext] CRLF. No white space around the size (nothing needs it, and
# parsers differ on it), sixteen digits at most. A name, and a value or none: what is no extension is no chunk.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t\x20!\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSION = rb";[\t ]*%b(?:[\t ]*=[\t ]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:%b(?:[\t ]*%b)*)?" % (_EXTENSION, _EXTENSION))
_CHUNK_LINE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,16}(?:(?<=[0-9A-Fa-f])(?:;[\t\x20-\x7e\x80-\xff]*)?\r?)?")
# RFC 9112 section 7.1.2 and RFC 9110 section 5: a trailer field is written as a header field is.
_TRAILER = re.compile(rb"(%b):([\t\x20-\x7e\x80-\xff]*)" % _TOKEN)
# RFC 9110 section 6.5.1: fields that frame, route or authenticate come before the body, or not at all. srvd would not
# believe such a trailer, but a client that sends one hopes that the application does.
_NO_TRAILERS = frozenset({b"authorization", b"content-length", b"host", b"te", b"trailer", b"transfer-encoding"})


class CountedBody:
    """As many bytes as Content-Length said (RFC 9112 section 6.3, item 6)."""

    __slots__ = ("_left", "received")

    def __init__(self, length: int) -> None:
        self._left = length
        self.received = 0

    @property
    def complete(self) -> bool:
        return self._left == 0

    @property
    def trailers(self) -> list[tuple[bytes, bytes]]:
        return []

    def take(self, data: bytes) -> tuple[list[bytes], int]:
        """The body's pieces in `data`, and how many bytes of `data` belonged to it."""
        piece = data if len(data) <= self._left else data[: self._left]
        self._left -= len(piece)
        self.received += len(piece)
        return ([piece] if piece else []), len(piece)


class _Part(Enum):
    LINE = "a chunk's size line"
    DATA = "a chunk's data"
    END = "the line end after a chunk's data"
    TRAILERS = "the trailer section"
    DONE = "over"


class ChunkedBody:
    """A body in the chunked coding (RFC 9112 section 7.1). `take` raises `Refusal` for what breaks its grammar."""

    __slots__ = ("_left", "_limits", "_line", "_overhead", "_part", "_trailer_bytes", "received", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = _Part.LINE
        self._line = b""  # a line whose end has not come: bounded by chunk_line, or by trailers
        self._left = 0  # bytes of the chunk's data still to come
        self._overhead = 0
        self._trailer_bytes = 0
        self.received = 0
        self.trailers: list[tuple[bytes, bytes]] = []

    @property
    def complete(self) -> bool:
        return self._part is _Part.DONE

    def take(self, data: bytes) -> tuple[list[bytes], int]:
        """The body's pieces in `data`, and how many bytes of `data` belonged to it."""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and self._part is not _Part.DONE:
            if self._part is _Part.DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self.received += len(piece)
                pieces.append(piece)
                if not self._left:
                    self._part = _Part.END
            else:
                at = self._take_line(data, at)
        return pieces, at

    def _take_line(self, data: bytes, at: int) -> int:
        """Reads on in the current line from `at`; the position after what was used."""
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        line = self._line + data[at:stop]
        self._check_length(line)
        if end < 0:
            self._check_begun(line)
            self._line = line
            return stop
        if not line.endswith(b"\r\n"):
            raise Refusal(400, f"{self._part.value} ends with a bare LF")
        self._line = b""
        self._accept(line[:-2])
        return stop

    def _check_length(self, line: bytes) -> None:
        limits = self._limits
        if self._part is _Part.TRAILERS:
            if self._trailer_bytes + len(line) > limits.trailers:
                raise Refusal(431, f"the trailers are longer than {limits.trailers} bytes")
        elif len(line) > limits.chunk_line:
            raise Refusal(400, f"a chunk line is longer than {limits.chunk_line} bytes")

    def _check_begun(self, line: bytes) -> None:
        # Garbage is refused when it comes, not when its line ends or the body's time is over.
        if self._part is _Part.END and line != b"\r":
            raise Refusal(400, "a chunk's data is longer than its size")
        if self._part is _Part.LINE and not _CHUNK_LINE_BEGUN.fullmatch(line):
            raise Refusal(400, "malformed chunk size")

    def _accept(self, line: bytes) -> None:
        if self._part is _Part.LINE:
            self._accept_size(line)
        elif self._part is _Part.END:
            if line:
                raise Refusal(400, "a chunk's data is longer than its size")
            self._part = _Part.LINE
        elif line:
            self._accept_trailer(line)
        else:
            self._part = _Part.DONE

    def _accept_size(self, line: bytes) -> None:
        limits = self._limits
        match = _CHUNK_LINE.fullmatch(line)
        if not match:
            raise Refusal(400, "malformed chunk size")
        self._left = int(match[1], 16)
        # Most of what framing costs is in these lines; the two bytes after the data are counted with them.
        self._overhead += len(line) + 4
        if self._overhead > limits.chunk_overhead + self.received // 2:
            raise Refusal(400, "the chunks are too small for their number")
        if limits.body and self.received + self._left > limits.body:
            raise Refusal(413, f"the body is longer than {limits.body} bytes")
        self._part = _Part.DATA if self._left else _Part.TRAILERS

    def _accept_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        match = _TRAILER.fullmatch(line)
        if not match:
            raise Refusal(400, "malformed trailer field")
        if b"_" in match[1] and not self._limits.underscores:
            raise Refusal(400, "a trailer field name with an underscore")
        if match[1].lower() in _NO_TRAILERS:
            raise Refusal(400, "a trailer field that frames, routes or authenticates")
        if len(self.trailers) >= self._limits.fields:
            raise Refusal(431, f"more than {self._limits.fields} trailer fields")
        self.trailers.append((match[1], match[2].strip(b" \t")))


Body = CountedBody | ChunkedBody
