"""The connections that one worker holds: who is here, who only waits to be seen off, and who wants to know of changes.

Opens and closes none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srvd.worker.arrival import Arrival
    from srvd.worker.connection import Connection
    from srvd.worker.meter import Meter

__all__ = ["Crowd"]


class Crowd:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._lingering: set[Connection | Arrival] = set()
        self.all: set[Connection | Arrival] = set()
        self.on_left: Callable[[float], None] = _nobody_waits
        """Called when a connection has gone, or begins to linger."""

    @property
    def working(self) -> int:
        """How many take room: one that lingers costs a descriptor only."""
        return len(self.all) - len(self._lingering)

    def enter(self, connection: Connection | Arrival) -> None:
        self.all.add(connection)
        self._meter.connections(len(self.all))

    def linger(self, connection: Connection, now: float) -> None:
        """It has its answer, and only waits for its client to close."""
        self._lingering.add(connection)
        self.on_left(now)

    def leave(self, connection: Connection | Arrival, now: float) -> None:
        self.all.discard(connection)
        self._lingering.discard(connection)
        self._meter.connections(len(self.all))
        self.on_left(now)


def _nobody_waits(now: float) -> None:
    """Before the orders are in place."""
