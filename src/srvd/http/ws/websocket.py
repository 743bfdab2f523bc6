"""A WebSocket after its opening handshake, the server's side: bytes in, events out; messages in, bytes out.

Has no socket and no clock: which bytes are sent when, and for how long an answer is waited for, is the caller's. Pure.
"""

from __future__ import annotations

from srvd.http.ws.closing import WRITING, State, Trigger, next_state
from srvd.http.ws.codes import CloseCode, close_payload
from srvd.http.ws.deflate import Deflater, Inflater
from srvd.http.ws.extensions import Agreement
from srvd.http.ws.frames import COMPRESSED, LONGEST_CONTROL, Opcode, write_frame
from srvd.http.ws.limits import Limits
from srvd.http.ws.reader import Closed, Event, FrameReader

__all__ = ["NotOpen", "WebSocket"]


class NotOpen(Exception):
    """Nothing more can be sent: a close frame was, or the connection has ended."""


class WebSocket:
    """One WebSocket. `agreement`: what was agreed on about compression; None: nothing."""

    __slots__ = ("_closing", "_deflater", "_reader", "_writable", "state")

    def __init__(self, limits: Limits, agreement: Agreement | None) -> None:
        self.state = State.OPEN
        self._writable = True  # the state is one of WRITING
        self._closing: bytes | None = None  # the close frame that is owed to the client has this payload
        self._deflater = None if agreement is None else Deflater(agreement)
        self._reader = FrameReader(limits, None if agreement is None else Inflater(agreement))

    def __repr__(self) -> str:
        return f"<WebSocket {self.state.value}>"

    # -- from the client -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Takes what came; returns the events in it. After a `Closed`, `close` sends what is owed to the client.

        Does not raise for what the client does: messages before a violation are returned before the `Closed` that names
        it, and the application may still answer them.
        """
        events = self._reader.read(data)
        if events and type(events[-1]) is Closed:
            self._take_end(events[-1])
        return events

    @property
    def has_more(self) -> bool:
        """Whether `receive` has left events behind, to bound what it inflates: call it again, with `b""`."""
        return self._reader.has_more

    def end(self) -> Closed | None:
        """Takes the end of the connection. Returns the event for the application; None: it had its `Closed`."""
        untold = self.state in (State.OPEN, State.CLOSE_SENT)
        self._move(Trigger.END)
        return Closed(CloseCode.ABNORMAL, "") if untold else None

    # -- to the client -------------------------------------------------------------------------------------------------

    def send(self, message: str | bytes) -> bytes:
        """Returns the frame of a text or binary message.

        Raises `NotOpen`; `UnicodeEncodeError` for a text that is no UTF-8 (it has lone surrogates).
        """
        if not self._writable:
            raise NotOpen(f"send a message: the WebSocket is in state {self.state.value!r}")
        kind: int
        if isinstance(message, str):
            kind, payload = Opcode.TEXT, message.encode()
        else:
            kind, payload = Opcode.BINARY, message
        deflater = self._deflater
        if deflater is not None and len(payload) >= deflater.threshold:
            return write_frame(kind | COMPRESSED, deflater.deflate(payload))
        return write_frame(kind, payload)

    def ping(self, payload: bytes = b"") -> bytes:
        """Returns a ping of at most 125 bytes. Raises `NotOpen`, `ValueError`."""
        if not self._writable:
            raise NotOpen(f"send a ping: the WebSocket is in state {self.state.value!r}")
        if len(payload) > LONGEST_CONTROL:
            msg = f"a ping has at most {LONGEST_CONTROL} bytes, not {len(payload)}"
            raise ValueError(msg)
        return write_frame(Opcode.PING, payload)

    def pongs(self) -> bytes:
        """Returns the answers to the client's pings, `b""` for none. Call it when the connection takes bytes: until
        then only the newest are kept.
        """
        pings = self._reader.pings
        if not pings:
            return b""
        frames = b"".join([write_frame(Opcode.PONG, payload) for payload in pings]) if self._writable else b""
        pings.clear()
        return frames

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> bytes:
        """Returns a close frame; nothing may be sent after it. In state CLOSED, the server then ends the connection.

        After a `Closed` the frame says what is owed: the client's own code and reason, or which rule it broke.
        Raises `NotOpen`, `ValueError` for a code that must not be sent.
        """
        payload = close_payload(code, reason) if self._closing is None else self._closing
        if not self._move(Trigger.CLOSE):
            raise NotOpen(f"close: the WebSocket is in state {self.state.value!r}")
        if self.state is State.CLOSE_SENT:
            self._reader.drop_messages()
        return write_frame(Opcode.CLOSE, payload)

    def release_memory(self) -> None:
        """Gives back the memory of the compressor, for a WebSocket that has nothing to say for a while."""
        if self._deflater is not None:
            self._deflater.release()

    def _take_end(self, end: Closed) -> None:
        self._closing = b"" if end.code == CloseCode.NO_CODE else close_payload(end.code, end.reason)
        self._move(Trigger.VIOLATION if end.violation else Trigger.PEER_CLOSE)

    def _move(self, trigger: Trigger) -> bool:
        """Enters the next state. False: it is too late for that."""
        state = next_state(self.state, trigger)
        if state is None:
            return False
        self.state = state
        self._writable = state in WRITING
        return True
