"""Frames as a client sends them, and what the WebSocket of a server makes of them, however they are cut."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from srvd.http.ws.extensions import Agreement
from srvd.http.ws.frames import COMPRESSED, Opcode
from srvd.http.ws.limits import Limits
from srvd.http.ws.mask import xored
from srvd.http.ws.reader import Closed, Event
from srvd.http.ws.websocket import WebSocket

MASK = b"\x37\xfa\x21\x3d"
TEXT, BINARY, MORE = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION
CLOSE, PING, PONG = Opcode.CLOSE, Opcode.PING, Opcode.PONG


def frame(kind: int, payload: bytes = b"", *, final: bool = True, bits: int = 0, mask: bytes = MASK) -> bytes:
    """A client's frame. `bits`: reserved ones of the first byte."""
    size = len(payload)
    head = bytes(((0x80 if final else 0) | bits | kind,))
    if size < 126:
        head += bytes((0x80 | size,))
    elif size < 1 << 16:
        head += b"\xfe" + size.to_bytes(2, "big")
    else:
        head += b"\xff" + size.to_bytes(8, "big")
    return head + mask + xored(payload, mask)


def deflated(text: bytes) -> bytes:
    """The payload of a compressed message that refers to none before it."""
    stream = zlib.compressobj(wbits=-12)
    return (stream.compress(text) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")


def compressed(kind: int, text: bytes) -> bytes:
    return frame(kind, deflated(text), bits=COMPRESSED)


class Reading(NamedTuple):
    events: list[Event]
    pongs: bytes

    @property
    def closed(self) -> Closed:
        assert isinstance(self.events[-1], Closed), self.events
        return self.events[-1]


def receive_all(websocket: WebSocket, data: bytes) -> list[Event]:
    """All events of what came, whatever has to be asked for again."""
    events = websocket.receive(data)
    while websocket.has_more:
        events += websocket.receive(b"")
    return events


def read(pieces: Iterable[bytes], limits: Limits | None = None, agreement: Agreement | None = None) -> Reading:
    """Reads pieces of a stream with a new WebSocket."""
    websocket = WebSocket(limits or Limits(), agreement)
    events: list[Event] = []
    pongs = b""
    for piece in pieces:
        events += receive_all(websocket, piece)
        pongs += websocket.pongs()
    return Reading(events, pongs)


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]
