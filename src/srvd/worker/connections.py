"""The connections of one worker: all of them, those that only linger, and the one to close to make room for another.

Opens and closes none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from srvd.http.h1.head import HeadReader
from srvd.http.h1.sink import Ends
from srvd.worker.loop import NEVER
from srvd.worker.net.phase import Phase
from srvd.worker.net.transport import Transport

if TYPE_CHECKING:
    from srvd.worker.observe.recorder import Recorder
    from srvd.worker.times import Times

__all__ = ["Connect", "Connections", "Guest", "Peer"]

# A connection makes room only after so many seconds of silence. A client that is idle, or has sent nothing, loses no
# data; but its request may be on the way, and most clients of a kept connection send the next one at once.
_SILENT = 1.0
# A client that has sent a part of a request loses that part. Several retransmissions fit in this time (RFC 6298).
_SILENT_WITHIN = 5.0
_MOST_FOUND = 64  # candidates kept from one look at all connections


class Peer(Protocol):
    """A client's connection, or a handshake that becomes one."""

    phase: Phase
    served: int  # requests
    deadline: float  # of the phase, in monotonic seconds

    def on_ready(self, mask: int, now: float) -> None:
        """Handles a socket that can be read, or written if the loop waits for that (epoll's mask)."""

    def expire(self, now: float) -> None:
        """Handles the end of the phase's time."""

    def hurry(self, deadline: float) -> None:
        """Shortens the time of the phase to `deadline`."""

    def close(self, now: float) -> None:
        """Closes the connection at once."""


class Guest(Peer, Protocol):
    """A connection that HTTP is spoken on."""

    def greet(self, now: float) -> None:
        """Reads what has come already, then waits in the loop. To be called once, after the connection was made."""


Connect = Callable[[Transport, Ends, float, HeadReader], Guest]
"""Makes a connection of an accepted socket. Arguments: the socket, its ends, the time, the reader of its heads."""


class Connections:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lingering: dict[Peer, None] = {}
        self._silent: list[tuple[bool, float, Peer]] = []  # candidates to make room, the longest silent last
        self.all: dict[Peer, float] = {}
        """All connections and when each was accepted (monotonic seconds), in that order."""
        self.on_left: Callable[[float], None] = _nobody_waits
        """Called when a connection has gone, or begins to linger."""

    @property
    def working(self) -> int:
        """The number of connections that count against the limit. A lingering one costs a descriptor only."""
        return len(self.all) - len(self._lingering)

    def enter(self, connection: Peer) -> None:
        self.all[connection] = time.monotonic()
        self._recorder.connections(len(self.all))

    def linger(self, connection: Peer, now: float) -> None:
        """Marks a connection that has sent its answer, and only waits for the client to close."""
        self._lingering[connection] = None
        self.on_left(now)

    def leave(self, connection: Peer, now: float) -> None:
        self.all.pop(connection, None)
        self._lingering.pop(connection, None)
        self._recorder.connections(len(self.all))
        self.on_left(now)

    def makes_room(self, now: float, times: Times, *, lingering: bool) -> Peer | None:
        """Returns the connection that has been silent for longest, if that is long enough; else None.

        lingering: descriptors are short, so return a lingering connection first.
        """
        if lingering and self._lingering:
            return next(iter(self._lingering))
        while True:
            while self._silent:
                _, since, connection = self._silent.pop()
                if connection in self.all and self._silent_since(connection, times) == since:
                    return connection
            found = [
                (connection.phase is not Phase.IDLE, since, connection)
                for connection in self.all
                if (since := self._silent_since(connection, times)) <= now - _SILENT
            ]
            found = [one for one in found if not one[0] or one[1] <= now - _SILENT_WITHIN]
            if not found:
                return None
            found.sort(key=lambda one: one[:2], reverse=True)
            self._silent = found[-_MOST_FOUND:]

    def _silent_since(self, connection: Peer, times: Times) -> float:
        """Returns the time since when the client has sent nothing; NEVER while the client is being answered."""
        phase = connection.phase
        if phase is Phase.IDLE:
            limit = times.idle if connection.served else times.first
        elif phase is Phase.HEAD:
            limit = times.head
        elif phase is Phase.BODY:
            limit = times.body
        else:
            return NEVER
        if limit != NEVER:
            return connection.deadline - limit
        # Without a limit the beginning of the present phase is unknown; the first one began when the client came.
        return NEVER if connection.served or phase is Phase.BODY else self.all[connection]


def _nobody_waits(now: float) -> None:
    """Does nothing, until `Commands` sets another function."""
