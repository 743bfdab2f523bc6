"""Turns the bytes of a client into messages and control frames.

Answers nothing, and of the closing handshake it knows only whether messages still matter: `websocket.py` has the rest.
Pure.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeAlias

from srvd.http.ws.codes import CloseCode, Violation, read_close
from srvd.http.ws.deflate import Inflater
from srvd.http.ws.frames import Header, Opcode, read_header
from srvd.http.ws.limits import Limits
from srvd.http.ws.mask import masked
from srvd.http.ws.message import IncomingMessage

__all__ = ["Closed", "Event", "FrameReader", "Pong"]

_LONGEST_SHORT = 65_535


class Pong(NamedTuple):
    """The client answers a ping, or says unasked that it is still there."""

    payload: bytes


class Closed(NamedTuple):
    """The last event: what the client sends from now on is not read."""

    code: int
    reason: str
    violation: bool = False
    """The client broke a rule, which `code` and `reason` name; else they are the client's own."""


Event: TypeAlias = str | bytes | Pong | Closed
"""A message is its text or its bytes."""


class FrameReader:
    """`read` returns the events in the order of their frames; none comes after a `Closed`.

    Keeps what came of a header (13 bytes at most) or of a control frame (138), the message whose frames come in
    (`Limits.message`), and what was left of one read because enough had been inflated.
    """

    __slots__ = (
        "_dropping", "_final", "_inflated", "_inflater", "_left", "_limits", "_mask", "_message", "_over", "_rest",
        "_short", "pings",
    )  # fmt: skip

    def __init__(self, limits: Limits, inflater: Inflater | None) -> None:
        self._limits = limits
        self._inflater = inflater  # None: compressed messages were not agreed on
        self._short = min(_LONGEST_SHORT, limits.message)
        self._rest = b""  # received, not used yet
        self._message: IncomingMessage | None = None  # whose frames come in
        self._left = 0  # bytes of the frame's payload that are still to come
        self._mask = b""  # for the first of them
        self._final = False  # the frame ends its message
        self._inflated = 0  # bytes, by this call of `read`
        self._dropping = False
        self._over = False
        self.pings: deque[bytes] = deque(maxlen=limits.pongs)
        """Payloads of pings that were not answered, the newest last."""

    @property
    def has_more(self) -> bool:
        """Whether the last call of `read` has left events behind: call it again."""
        return self._inflated > self._limits.inflated

    def drop_messages(self) -> None:
        """From now on messages are not kept: only the client's close frame matters."""
        self._dropping = True
        self._message = None
        self._short = -1

    def read(self, data: bytes) -> list[Event]:
        """Takes what came; returns the events in it."""
        events: list[Event] = []
        if self._over:
            return events
        if self._rest:
            data = self._rest + data
            self._rest = b""
        self._inflated = 0
        try:
            at = self._read_all(data, events)
        except UnicodeDecodeError:
            self._over = True
            events.append(Closed(CloseCode.INVALID_DATA, "a text message is not UTF-8", violation=True))
        except Violation as violation:
            self._over = True
            events.append(Closed(violation.code, violation.why, violation=True))
        else:
            if at < len(data):
                self._rest = data[at:]
        return events

    def _read_all(self, data: bytes, events: list[Event]) -> int:
        """Returns where it stopped: at the end, before what is not whole, or where enough was inflated."""
        at, end = 0, len(data)
        while at < end and not self._over:
            before = at
            if self._message is None:
                at = self._read_short(data, at, events)
            if at == before:
                at = self._read_part(data, at, events)
                if at == before or self._inflated > self._limits.inflated:
                    break
        return at

    def _read_short(self, data: bytes, at: int, events: list[Event]) -> int:
        """Reads what most frames are: short messages, all here and not compressed. Returns where they end.

        `_read_part` would find the same, in three times the time.
        """
        end, most = len(data), self._short
        while end - at >= 6:
            first = data[at]
            length = data[at + 1] - 0x80
            start = at + 6
            if length >= 126:
                if length == 127 or end - at < 8 or (length := data[at + 2] << 8 | data[at + 3]) < 126:
                    break
                start = at + 8
            stop = start + length
            if first not in (0x81, 0x82) or not 0 <= length <= most or stop > end:  # final: text, binary
                break
            payload = masked(data[start:stop], data[start - 4 : start])
            events.append(payload if first == 0x82 else payload.decode())
            at = stop
        return at

    def _read_part(self, data: bytes, at: int, events: list[Event]) -> int:
        """Reads a frame, or what has come of it. Returns where that ends; `at` if more is needed."""
        if self._left:
            return self._read_payload(data, at, events)
        header = read_header(data, at)
        if header is None:
            return at
        start = at + header.size
        stop = start + header.length
        if header.kind < Opcode.CLOSE:
            self._begin_frame(header)
            return self._read_payload(data, start, events)
        if stop > len(data):
            return at
        self._take_control(header.kind, masked(data[start:stop], header.mask), events)
        return stop

    def _begin_frame(self, header: Header) -> None:
        self._left, self._mask, self._final = header.length, header.mask, header.final
        if self._dropping:
            return
        message = self._message
        if header.kind is Opcode.CONTINUATION:
            if message is None:
                raise Violation(CloseCode.PROTOCOL_ERROR, "a continuation of no message")
            if header.compressed:
                raise Violation(CloseCode.PROTOCOL_ERROR, "a compressed continuation")  # RFC 7692 section 6.1
        else:
            if message is not None:
                raise Violation(CloseCode.PROTOCOL_ERROR, "a message within another one")
            if header.compressed and self._inflater is None:
                raise Violation(CloseCode.PROTOCOL_ERROR, "a reserved bit is set")
            inflater = self._inflater if header.compressed else None
            message = IncomingMessage(self._limits, header.kind is Opcode.TEXT, inflater)
            self._message = message
        message.begin_frame(header.length)

    def _read_payload(self, data: bytes, at: int, events: list[Event]) -> int:
        stop = min(at + self._left, len(data))
        self._left -= stop - at
        message = self._message
        if message is not None:
            if stop > at:
                message.add(masked(data[at:stop], self._mask))
            turn = (stop - at) % 4
            self._mask = self._mask[turn:] + self._mask[:turn]
            if self._final and not self._left:
                self._message = None
                events.append(message.finish())
                self._inflated += message.inflated
        return stop

    def _take_control(self, kind: Opcode, payload: bytes, events: list[Event]) -> None:
        if kind is Opcode.CLOSE:
            code, reason = read_close(payload)
            self._over = True
            events.append(Closed(code, reason))
        elif kind is Opcode.PONG:
            events.append(Pong(payload))
        else:
            self.pings.append(payload)
