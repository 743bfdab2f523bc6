"""The connections that one worker holds: which are here, which only linger, and which one makes room for another.

Opens and closes none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from srvd.worker.loop import NEVER
from srvd.worker.net.phase import Phase

if TYPE_CHECKING:
    from srvd.worker.observe.recorder import Recorder
    from srvd.worker.times import Times

__all__ = ["Connections", "Peer"]

# A connection makes room only when it has been silent for so many seconds. One that has sent nothing, or is idle, loses
# nothing by it; but its request may be on the way, and a kept connection mostly goes on at once.
_SILENT = 1.0
# One that has sent a part of a request loses that. Several retransmissions would have come in this time (RFC 6298).
_SILENT_WITHIN = 5.0
_MOST_FOUND = 64  # that are kept from one look at all connections


class Peer(Protocol):
    """A client's connection, or what is to become one."""

    phase: Phase
    served: int  # requests
    deadline: float  # of the phase, in monotonic seconds

    def on_ready(self, mask: int, now: float) -> None:
        """The socket can be read, or written if that was waited for (epoll's mask)."""

    def expire(self, now: float) -> None:
        """The time of the phase is over."""

    def hurry(self, deadline: float) -> None:
        """Be done by then at the latest."""

    def close(self, now: float) -> None:
        """End at once."""


class Connections:
    def __init__(self, meter: Recorder) -> None:
        self._meter = meter
        self._lingering: dict[Peer, None] = {}
        self._silent: list[tuple[bool, float, Peer]] = []  # the longest-silent one is the last
        self.all: dict[Peer, float] = {}
        """With the time when each came (monotonic seconds), in that order."""
        self.on_left: Callable[[float], None] = _nobody_waits
        """Called when a connection has gone, or begins to linger."""

    @property
    def working(self) -> int:
        """How many take room: one that lingers costs a descriptor only."""
        return len(self.all) - len(self._lingering)

    def enter(self, connection: Peer) -> None:
        self.all[connection] = time.monotonic()
        self._meter.connections(len(self.all))

    def linger(self, connection: Peer, now: float) -> None:
        """It has its answer, and only waits for its client to close."""
        self._lingering[connection] = None
        self.on_left(now)

    def leave(self, connection: Peer, now: float) -> None:
        self.all.pop(connection, None)
        self._lingering.pop(connection, None)
        self._meter.connections(len(self.all))
        self.on_left(now)

    def makes_room(self, now: float, times: Times, *, lingering: bool) -> Peer | None:
        """The connection that has been silent for longest, if that is long enough; else None.

        `lingering`: descriptors are short, so one that has had its answer comes first.
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
        """NEVER for one that is not silent: it is being answered."""
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
        # Without a limit nothing says when the present phase began; of the first one it is known.
        return NEVER if connection.served or phase is Phase.BODY else self.all[connection]


def _nobody_waits(now: float) -> None:
    """Before the orders are in place."""
