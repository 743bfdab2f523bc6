"""Who is at the other end of a Unix socket: SO_PEERCRED, unix(7).

Decides nothing about that process: `daemon/control/peers.py` and others do.
"""

from __future__ import annotations

import socket
import struct

from srvd.record import Record

__all__ = ["Credentials", "of_peer"]

_UCRED = struct.Struct("3i")


class Credentials(Record):
    """Numbers of a process as this one sees them. pid: 0 for a process in another pid namespace."""

    pid: int
    uid: int
    gid: int


def of_peer(sock: socket.socket) -> Credentials:
    """Returns the peer at the time it connected; on the connecting side, the process that called listen(2). Raises
    `OSError` when the kernel does not name it.
    """
    return Credentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
