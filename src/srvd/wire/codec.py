"""Frames of the control socket: a 4-byte big-endian length, then one msgpack map.

Knows no socket, no clock and no command. Pure.

Whole frames are decoded with `msgpack.unpackb`. msgpack's streaming `Unpacker` keeps a buffer of its own, of 68 MB for
5 KB received. No memory is allocated for the length that a peer claims, only for bytes that have arrived.
"""

from __future__ import annotations

from typing import Any

import msgpack

from srvd.errors import BadFrame, InternalError
from srvd.record import Record

__all__ = ["DEPTH", "PROTOCOL", "REQUESTS", "RESPONSES", "SCHEMA", "Bounds", "Decoder", "encode"]

PROTOCOL = 1
"""Version of the messages. Raised when a peer of the former version would misunderstand one."""

SCHEMA = 2
"""Version of the results, as `srvctl --json` prints them. New fields do not raise it."""

DEPTH = 16
"""Greatest depth of nested maps and lists, the frame's own map included."""

PREFIX = 4


class Bounds(Record):
    """Limits of one frame: bytes for `frame` and `text`, counts for the others."""

    frame: int
    items: int  # of one list
    keys: int  # of one map
    text: int  # one string, in bytes of UTF-8
    strict: bool = True  # refuse keys that come twice, too great a depth, and numbers that JSON does not have


REQUESTS = Bounds(frame=64 << 10, items=1024, keys=256, text=16 << 10)
"""Limits of what a peer sends to the daemon: decoding the worst frame takes 5 MB and 9 ms."""

RESPONSES = Bounds(frame=4 << 20, items=64 << 10, keys=16 << 10, text=1 << 20, strict=False)
"""Limits of what the daemon answers. Not strict: the daemon encoded the answer itself, and the checks take ten times as
long as decoding it."""


def encode(message: dict[str, Any], bounds: Bounds = RESPONSES) -> bytes:
    """Returns the frame of a message.

    Text that is not valid Unicode (a lone surrogate, from undecodable bytes of another program) is sent with
    backslashes. Raises `BadFrame` when the message is longer than `bounds.frame`, and `InternalError` when msgpack
    cannot encode it: a number of more than 64 bits, a value of another type.
    """
    try:
        body: bytes = msgpack.packb(message)
    except UnicodeEncodeError:
        body = msgpack.packb(message, unicode_errors="backslashreplace")
    except (TypeError, ValueError, OverflowError) as exc:
        raise InternalError(f"spell a message: {exc}; it is not sent") from exc
    if len(body) > bounds.frame:
        raise BadFrame(f"spell a message: {len(body)} bytes, and {bounds.frame} is the limit; it is not sent")
    return len(body).to_bytes(PREFIX, "big") + body


class Decoder:
    """Turns a stream of bytes into maps. After `BadFrame` the rest of the stream cannot be read: close it."""

    __slots__ = ("_bounds", "_buffer")

    def __init__(self, bounds: Bounds = REQUESTS) -> None:
        self._bounds = bounds
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that were pushed and not yet popped."""
        return len(self._buffer)

    def push(self, chunk: bytes) -> None:
        """Appends bytes of the stream. The caller limits how many wait to be popped."""
        self._buffer += chunk

    def pop(self) -> dict[str, Any] | None:
        """Returns the next map; None while its frame is incomplete.

        Raises `BadFrame` as soon as the frame is known to be wrong, which may be at its first byte.
        """
        buffer = self._buffer
        length = self._length() if buffer else -1
        if length < 0 or len(buffer) < PREFIX + length:
            return None
        body = bytes(memoryview(buffer)[PREFIX : PREFIX + length])
        del buffer[: PREFIX + length]
        return self._decode(body)

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        """Returns the maps that `chunk` completes, in their order. Raises `BadFrame`, and drops the maps before it."""
        self.push(chunk)
        maps = []
        while (message := self.pop()) is not None:
            maps.append(message)
        return maps

    def _length(self) -> int:
        """Returns the length of the first frame; -1 while it is not known."""
        buffer, limit = self._buffer, self._bounds.frame
        # Missing bytes of the length count as zeros: the true length is at least this.
        least = int.from_bytes(bytes(buffer[:PREFIX]).ljust(PREFIX, b"\0"), "big")
        if least > limit:
            raise BadFrame(f"read a frame: it claims {least} bytes or more, and {limit} is the limit")
        if len(buffer) < PREFIX:
            return -1
        if not least:
            raise BadFrame("read a frame: it is empty")
        if len(buffer) > PREFIX and not _opens_map(buffer[PREFIX]):
            raise BadFrame(f"read a frame: it begins with byte 0x{buffer[PREFIX]:02x}, which opens no map")
        return least

    def _decode(self, body: bytes) -> dict[str, Any]:
        bounds = self._bounds
        try:
            message = msgpack.unpackb(
                body,
                raw=False,
                strict_map_key=True,
                object_pairs_hook=_unique if bounds.strict else None,
                ext_hook=_no_ext,
                max_ext_len=0,
                max_array_len=bounds.items,
                max_map_len=bounds.keys,
                max_str_len=bounds.text,
                max_bin_len=0,
            )
            if bounds.strict:
                _check(message, DEPTH)
        except (ValueError, TypeError, OverflowError, RecursionError) as exc:
            raise BadFrame(f"read a frame: {exc}" if str(exc) else f"read a frame: {type(exc).__name__}") from exc
        if not isinstance(message, dict):
            raise BadFrame("read a frame: it is no map")
        return message


def _opens_map(byte: int) -> bool:
    """Fixmap, map 16, map 32 (msgpack specification, "map format family")."""
    return 0x80 <= byte <= 0x8F or byte in (0xDE, 0xDF)


def _unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Makes a map of pairs. Refuses keys that are no text or come twice: two programs could read them differently."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key comes twice in one map")
    for key in made:
        if not isinstance(key, str):
            raise ValueError("a key is no text")
    return made


def _no_ext(code: int, data: bytes) -> None:
    """Refuses an extension without bytes, which `max_ext_len=0` lets through."""
    raise ValueError(f"extension type {code} with {len(data)} bytes")


def _check(value: object, room: int) -> None:
    """Refuses a value that is nested deeper than `room`, and numbers that JSON does not have."""
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError("a number is not finite")
    elif isinstance(value, (dict, list)):
        if not room:
            raise ValueError(f"nested deeper than {DEPTH}")
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (dict, list, float)):
                _check(item, room - 1)
