"""Frames that wait until a peer of the control socket reads them.

Knows no request: it is given whole frames.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable

from srvd.daemon.loop import Loop

__all__ = ["MOST_WAITING", "SendQueue"]


MOST_WAITING = 8 << 20
"""Bytes of unread frames at which the connection is closed; two of the largest answers fit."""


class SendQueue:
    """Frames on their way to one peer. Never blocks: keeps what the kernel does not take yet."""

    __slots__ = ("_drained", "_loop", "_sock", "_waiting", "stalled_at")

    def __init__(self, loop: Loop, sock: socket.socket, drained: Callable[[], None]) -> None:
        self._loop = loop
        self._sock = sock
        self._drained = drained
        self._waiting = bytearray()
        self.stalled_at = math.inf  # since when the peer reads nothing while something waits

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, frame: bytes) -> bool:
        """Sends the frame now, or when the peer reads. False: the peer is gone, or `MOST_WAITING` is exceeded."""
        if self._waiting:
            self._waiting += frame
            return len(self._waiting) <= MOST_WAITING
        try:
            sent = self._sock.send(frame, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(frame):
            self._waiting += memoryview(frame)[sent:]
            self.stalled_at = self._loop.time()
            self._loop.add_writer(self._sock.fileno(), self._writable)
        return True

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._waiting, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._waiting)  # the peer is gone and reads no more; the reader will find the end of file
        del self._waiting[:sent]
        if self._waiting:
            self.stalled_at = self._loop.time()
        else:
            self.stop()
        self._drained()

    def stop(self) -> None:
        """Drops the waiting frames."""
        if self.stalled_at != math.inf:
            self._loop.remove_writer(self._sock.fileno())
        self.stalled_at = math.inf
        self._waiting.clear()
