"""Bounds of the control socket: how much of the daemon its peers may use.

Enforces none: acceptor, admission and connection do.
"""

from __future__ import annotations

from srvd.record import Record

__all__ = ["Limits"]


class Limits(Record):
    """Bounds of the control socket. Times in seconds."""

    connections: int = 64
    reserved: int = 4  # of them only for admins
    per_uid: int = 16
    waits: int = 32  # requests of one connection that wait for an operation
    frame: float = 5.0  # from a frame's first byte to its last
    idle: float = 60.0  # without a request, unless watching or waiting
    stall: float = 30.0  # without the peer reading, while something waits for it
    accept_rate: float = 200.0  # connections a second of those below admin that get a slot
    accept_burst: int = 64
    look_rate: float = 3000.0  # connections a second that are accepted at all
    look_burst: int = 128  # the backlog: an admin waits behind as many at most
