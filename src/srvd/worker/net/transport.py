"""The methods that a connection needs of its socket. A plain socket has them; `tls.py` implements them for TLS.

One of the two is chosen when a connection is accepted, so that plain HTTP pays nothing for TLS.
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

__all__ = ["READ", "RESET", "Transport", "abort", "calm"]

READ = 65_536
"""The most bytes to receive from a socket at a time."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close() sends a reset, also the close at the end of a killed process."""
_CALM = struct.pack("ii", 0, 0)


class Transport(Protocol):
    """The methods of `socket.socket` on a non-blocking socket, with their errors: `BlockingIOError`, `OSError`."""

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def recv(self, bufsize: int, /) -> bytes:
        """Receives bytes; b"" at the end. Returns all decoded bytes, which epoll would not report if they were kept."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Sends bytes, and returns how many were taken. After `BlockingIOError`, or if not all were taken, the next
        call must begin with the first byte not taken.
        """

    def shutdown(self, how: int, /) -> None: ...

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...

    def close(self) -> None: ...


def abort(transport: Transport) -> None:
    """Makes the close of a socket a reset, so that the peer sees an error. Does nothing for Unix sockets."""
    if transport.family != socket.AF_UNIX:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def calm(transport: Transport) -> None:
    """Makes the close of a socket an ordinary one again. Raises `OSError`."""
    if transport.family != socket.AF_UNIX:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CALM)
