"""One control connection as a stream: reads maps, sends frames, both within bounds of size and time.

Understands no message: `requests.py` reads the maps, and `server.py` decides whether the connection may stay.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

from srvd.daemon.control.limits import Limits
from srvd.daemon.control.peers import Peer
from srvd.daemon.control.send_queue import SendQueue
from srvd.daemon.loop import Loop
from srvd.errors import BadFrame
from srvd.linux import fds
from srvd.wire.codec import Decoder, encode

__all__ = ["ControlConnection"]

CHUNK = 64 << 10
TURN = 16
"""Requests of one peer that are answered before other peers, and the supervisor, have their turn."""

HIGH = 256 << 10
"""Bytes of unread answers; a peer that lets more wait gets no further answer until it reads."""


class Owner(Protocol):
    """What a connection reports its events to: the server."""

    def received(self, connection: ControlConnection, message: Mapping[str, Any]) -> None: ...
    def garbled(self, connection: ControlConnection, problem: BadFrame) -> None: ...
    def drained(self, connection: ControlConnection) -> None: ...
    def changed(self, connection: ControlConnection) -> None: ...
    def closed(self, connection: ControlConnection) -> None: ...


class ConnectionState(Enum):
    """What a connection does with what the peer sends, and with what is still to be sent."""

    READING = "reading"  # requests are read
    FULL = "full"  # nothing is read until the peer has taken its answers
    LEAVING = "leaving"  # nothing is read any more, the rest is sent
    ENDED = "ended"


class ControlConnection:
    """The connection of one peer, until `end()`."""

    __slots__ = ("_active_at", "_decoder", "_frame_at", "_loop", "_owner", "_send_queue", "_state", "peer", "sock")

    def __init__(self, loop: Loop, sock: socket.socket, peer: Peer, owner: Owner) -> None:
        self.peer = peer
        self.sock = sock  # non-blocking
        self._loop = loop
        self._owner = owner
        self._decoder = Decoder()
        self._send_queue = SendQueue(loop, sock, self._drained)
        self._frame_at = math.inf  # first byte of an unfinished frame
        self._active_at = loop.time()  # the latest request or answer
        self._state = ConnectionState.READING
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message. Raises `BadFrame`, and sends nothing, when it is longer than an answer may be."""
        self._active_at = self._loop.time()
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        if self._state in (ConnectionState.LEAVING, ConnectionState.ENDED):
            return
        if not self._send_queue.put(frame):
            self.end()
        elif self._send_queue:
            self._owner.changed(self)

    @property
    def has_room(self) -> bool:
        """Whether the peer reads what it is sent."""
        return len(self._send_queue) <= HIGH

    def due(self, limits: Limits, *, engaged: bool) -> float:
        """Returns when the peer will be overdue if nothing happens; `engaged`: it waits or watches, so may be idle."""
        return min(self._dues(limits, engaged=engaged).values())

    def overdue(self, now: float, limits: Limits, *, engaged: bool) -> str:
        """Returns what the peer is late with: "frame" (to end one), "stall" (to read), "idle" (to ask); "": nothing."""
        return next((what for what, due in self._dues(limits, engaged=engaged).items() if due <= now), "")

    def _dues(self, limits: Limits, *, engaged: bool) -> dict[str, float]:
        return {
            "frame": self._frame_at + limits.frame,
            "stall": self._send_queue.stalled_at + limits.stall,
            "idle": math.inf if engaged or self._state is ConnectionState.FULL else self._active_at + limits.idle,
        }

    def finish(self) -> None:
        """Ends the connection once the waiting frames are sent; reads nothing more, and accepts no further frame."""
        if self._state in (ConnectionState.LEAVING, ConnectionState.ENDED):
            return
        self._stop_reading()
        self._state = ConnectionState.LEAVING
        self._frame_at = math.inf
        if not self._send_queue:
            self.end()

    def end(self) -> None:
        """Closes the connection at once; frames that wait are lost."""
        if self._state is ConnectionState.ENDED:
            return
        self._release()
        fds.close_link(self.sock)
        self._owner.closed(self)

    def abandon(self) -> int:
        """Returns the open descriptor, which closes when the process ends."""
        self._release()
        return self.sock.detach()

    def _release(self) -> None:
        self._stop_reading()
        self._send_queue.stop()
        self._state = ConnectionState.ENDED

    def _stop_reading(self) -> None:
        if self._state is ConnectionState.READING:
            self._loop.remove_reader(self.sock.fileno())

    def _readable(self) -> None:
        try:
            chunk = fds.receive_bytes(self.sock, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.end()
            return
        self._active_at = self._loop.time()
        self._decoder.push(chunk)
        self._work()

    def _work(self) -> None:
        """Answers waiting requests, a few at a time, and only while the peer reads its answers.

        Requests that are not answered yet stay in the decoder as bytes, since a map is many times as large.
        """
        answered = False
        for _ in range(TURN):
            if not self.has_room:
                self._hold()
                return
            try:
                message = self._decoder.pop()
            except BadFrame as problem:
                self._owner.garbled(self, problem)
                return
            if message is None:
                self._read_on(answered=answered)
                return
            answered = True
            self._owner.received(self, message)
            if self._state in (ConnectionState.LEAVING, ConnectionState.ENDED):
                return
        self._hold()
        self._loop.call_soon(self._work_on)

    def _hold(self) -> None:
        self._stop_reading()
        self._state = ConnectionState.FULL
        self._frame_at = math.inf
        self._owner.changed(self)

    def _read_on(self, *, answered: bool) -> None:
        """Waits for more frames, now that all are answered. A frame's time runs from its first byte."""
        if self._state is ConnectionState.FULL:
            self._loop.add_reader(self.sock.fileno(), self._readable)
        self._state = ConnectionState.READING
        if not self._decoder.pending:
            self._frame_at = math.inf
        elif answered or self._frame_at == math.inf:
            self._frame_at = self._loop.time()
        self._owner.changed(self)

    def _work_on(self) -> None:
        if self._state is ConnectionState.FULL:
            self._work()

    def _drained(self) -> None:
        if self._state is ConnectionState.LEAVING:
            if not self._send_queue:
                self.end()
            return
        self._owner.drained(self)
        self._work_on()
