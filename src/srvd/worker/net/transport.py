"""What a connection needs of its socket. A plain socket is one itself; `tls.py` has the same face over TLS.

Which of the two a connection has is chosen once, when it is accepted: plain HTTP pays nothing for TLS.
"""

from __future__ import annotations

import socket
import struct
from typing import Protocol

__all__ = ["READ", "RESET", "Transport", "abort", "calm"]

READ = 65_536
"""So many bytes are asked of a socket at a time."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close() resets, also the one at the end of a process that is killed."""
_CALM = struct.pack("ii", 0, 0)


class Transport(Protocol):
    """The methods of `socket.socket` on a non-blocking socket, with their errors: `BlockingIOError`, `OSError`."""

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def recv(self, bufsize: int, /) -> bytes:
        """b"" at the end. What was received is given out whole: nothing waits that epoll would not tell of."""

    def send(self, data: bytes | memoryview, /) -> int:
        """How many bytes were taken. After `BlockingIOError`, or if that were not all, the next call must begin with
        the first byte that was not taken.
        """

    def shutdown(self, how: int, /) -> None: ...

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...

    def close(self) -> None: ...


def abort(transport: Transport) -> None:
    """Its close will be a reset, so that the peer sees an error. Unix sockets have none."""
    if transport.family != socket.AF_UNIX:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def calm(transport: Transport) -> None:
    """Its close will be an ordinary one again. Raises `OSError`."""
    if transport.family != socket.AF_UNIX:
        transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CALM)
