"""Whether a worker has room for one more connection, and which silent one is closed if it has none.

Accepts and closes nothing: `acceptor.py` does.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from srvd.worker.context import WorkerContext
from srvd.worker.loop import NEVER

if TYPE_CHECKING:
    from srvd.worker.connections import Peer

__all__ = ["Room"]

_COMPLAINT_GAP = 60.0
"""Seconds between two log lines about connections closed to make room."""
# Descriptors that connections leave to the application.
_SPARE_FILES = 64


class Room:
    """The room of one worker: at most `most` connections, and as many as the limit of open files allows."""

    def __init__(self, context: WorkerContext, most: int) -> None:
        self._context = context
        self._limit = most
        self._files = _files()
        self._complained = -_COMPLAINT_GAP
        self.pressed = False
        """Whether clients wait for room in vain, so that silent connections are closed for them."""

    @property
    def is_left(self) -> bool:
        connections = self._context.connections
        return connections.working < self._limit and len(connections.all) < self._files

    def spare(self, now: float) -> Peer | None:
        """Returns the connection to close for a waiting client; None if none has been silent for long enough."""
        if not self.pressed:
            return None
        connections = self._context.connections
        spare = connections.makes_room(now, self._context.times, lingering=len(connections.all) >= self._files)
        if spare is None:
            self.pressed = False
        return spare

    def part_with(self, spare: Peer, now: float) -> None:
        """Closes a spare connection."""
        spare.expire(now)
        if now - self._complained >= _COMPLAINT_GAP:
            self._complained = now
            self._context.log.warning(
                f"clients wait, and as many connections are open as max_connections ({self._limit}) or the limit of "
                "open files allows: those that are silent for longest are closed"
            )


def _files() -> float:
    """Returns how many connections the limit of open files allows, with some files left for the application."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return NEVER if soft == resource.RLIM_INFINITY else max(soft - _SPARE_FILES, 1)
