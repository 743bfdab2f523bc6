"""Compresses and inflates messages with what was agreed on (RFC 7692 section 7.2). What comes out is bounded.

Knows no frames: payloads in, payloads out. Pure.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from srvd.http.ws.codes import CloseCode, Violation
from srvd.http.ws.extensions import Agreement

__all__ = ["Deflater", "Inflater"]

_TAIL = b"\x00\x00\xff\xff"  # what is left out at the end of each message (section 7.2.1)
_STEP = 65_536
"""Bytes that come out of zlib at once: it keeps twice as much while it makes them."""
_SLICE = 16_384
"""Bytes that go into zlib at once: it copies what it has not used yet after each step."""
_MEMORY = 5  # of the compressor: with a window of 2**12 it takes 32 KiB, and 256 KiB as zlib would have it
_MOST_STREAMS = 64


class Inflater:
    """Inflates the messages of one client."""

    __slots__ = ("_bits", "_stream", "_streams", "_takeover")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = -agreement.client_bits
        self._takeover = agreement.client_takeover
        self._stream = zlib.decompressobj(self._bits)
        self._streams = 0  # that ended within this message

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yields what the data comes to, in pieces of at most 64 KiB. Stop taking them, and nothing more is inflated.

        Raises `Violation`.
        """
        for start in range(0, len(data), _SLICE):
            yield from self._inflate(data[start : start + _SLICE])

    def finish(self) -> Iterator[bytes]:
        """Yields what is left of a message at its end."""
        if not self._stream.eof:
            yield from self._inflate(_TAIL)
        self._streams = 0
        if not self._takeover:
            self._stream = zlib.decompressobj(self._bits)

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = self._stream.decompress(data, _STEP)
            except zlib.error:
                raise Violation(CloseCode.INVALID_DATA, "malformed compressed data") from None
            if piece:
                yield piece
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                if data:
                    self._begin_stream()
            if not data:  # what a full step has left in zlib, less than a step, comes with the next data or the tail
                return

    def _begin_stream(self) -> None:
        """Goes on after a block that says it is the last (section 7.2.3.4). Its stream was complete, and so what comes
        next does not refer to it.
        """
        self._streams += 1
        if self._streams > _MOST_STREAMS:  # two bytes are a whole stream: each would cost a new window
            raise Violation(CloseCode.POLICY_VIOLATION, f"more than {_MOST_STREAMS} final blocks in a message")
        self._stream = zlib.decompressobj(self._bits)


class Deflater:
    """Compresses the messages of the server to one client."""

    __slots__ = ("_bits", "_stream", "_takeover", "threshold")

    def __init__(self, agreement: Agreement) -> None:
        self._bits = -agreement.server_bits
        self._takeover = agreement.server_takeover
        self._stream: zlib._Compress | None = None
        self.threshold = agreement.threshold
        """Shorter messages, in bytes, are sent as they are."""

    def deflate(self, data: bytes) -> bytes:
        stream = self._stream
        if stream is None:
            stream = zlib.compressobj(wbits=self._bits, memLevel=_MEMORY)
            if self._takeover:
                self._stream = stream
        return (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)

    def release(self) -> None:
        """Gives back the memory of the compressor. The next message begins with an empty window, which any client
        understands.
        """
        self._stream = None
