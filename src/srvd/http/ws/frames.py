"""Frames as bytes (RFC 6455 section 5.2): reads the header of a client's frame, writes the frames of a server.

Knows one frame at a time: what may follow what is told by `reader.py`. Pure.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from srvd.http.ws.codes import CloseCode, Violation

__all__ = ["COMPRESSED", "LONGEST_CONTROL", "Header", "Opcode", "read_header", "write_frame"]


class Opcode(IntEnum):
    """The kinds of frames. Those from 8 on are control frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_FINAL = 0x80
COMPRESSED = 0x40
"""The bit RSV1: the message is compressed (RFC 7692 section 6)."""
_RESERVED = 0x30
_OPCODE = 0x0F
_KINDS: dict[int, Opcode] = {int(opcode): opcode for opcode in Opcode}
_MASKED = 0x80
LONGEST_CONTROL = 125
"""Bytes of the payload of a control frame."""
_TWO_BYTES = 126  # in the place of the length: it follows in two bytes
_EIGHT_BYTES = 127
_HEADS = {
    kind | compressed: tuple(bytes((_FINAL | compressed | kind, size)) for size in range(_TWO_BYTES))
    for kind in Opcode
    for compressed in (0, COMPRESSED)
}
"""The headers of all short frames, by opcode and RSV1."""


class Header(NamedTuple):
    kind: Opcode
    final: bool
    compressed: bool
    length: int  # of the payload, in bytes
    mask: bytes
    size: int  # of the header itself


def read_header(data: bytes, at: int) -> Header | None:
    """Returns the header that begins at `at`, or None if it is not whole. Raises `Violation`.

    Checks each byte when it is here: what can be refused after two bytes does not wait for the rest.
    """
    if len(data) - at < 2:
        return None
    first, second = data[at], data[at + 1]
    kind = _KINDS.get(first & _OPCODE)
    length = second & 127
    if kind is None:
        raise Violation(CloseCode.PROTOCOL_ERROR, f"a frame of the unknown kind {first & _OPCODE}")
    if first & _RESERVED:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")
    if not second & _MASKED:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a frame of a client without a mask")
    if kind >= Opcode.CLOSE:
        _check_control(first, length)
    start = at + 2
    if length >= _TWO_BYTES:
        start += 2 if length == _TWO_BYTES else 8
        if len(data) < start:
            return None
        length = _long_length(data[at + 2 : start])
    if len(data) < start + 4:
        return None
    return Header(kind, first >= _FINAL, first & COMPRESSED != 0, length, data[start : start + 4], start + 4 - at)


def _check_control(first: int, length: int) -> None:
    """RFC 6455 section 5.5, RFC 7692 section 6.1."""
    if not first & _FINAL:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a control frame in fragments")
    if first & COMPRESSED:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a compressed control frame")
    if length > LONGEST_CONTROL:
        raise Violation(CloseCode.PROTOCOL_ERROR, f"a control frame of more than {LONGEST_CONTROL} bytes")


def _long_length(text: bytes) -> int:
    length = int.from_bytes(text, "big")
    if length >> 63:
        raise Violation(CloseCode.PROTOCOL_ERROR, "a frame's length has its first bit set")
    if length < _TWO_BYTES or (len(text) == 8 and length < 1 << 16):
        raise Violation(CloseCode.PROTOCOL_ERROR, "a frame's length has more bytes than it needs")
    return length


def write_frame(kind: int, payload: bytes) -> bytes:
    """Returns a whole final frame, without a mask, as servers send them. `kind`: an `Opcode`, or with `COMPRESSED`."""
    size = len(payload)
    if size < _TWO_BYTES:
        return _HEADS[kind][size] + payload
    if size < 1 << 16:
        return b"%c%c%b%b" % (_FINAL | kind, _TWO_BYTES, size.to_bytes(2, "big"), payload)
    return b"%c%c%b%b" % (_FINAL | kind, _EIGHT_BYTES, size.to_bytes(8, "big"), payload)
