"""Memory that a worker has for bodies which wait: of requests until they are whole, of responses until they are read.

Counts bytes, and holds none itself.
"""

from __future__ import annotations

from threading import Lock

__all__ = ["IN_MEMORY", "Budget"]

IN_MEMORY = 1 << 20
"""Bytes of one body that are kept in memory, at most; a longer one goes to a file."""


class Budget:
    """Shared by all connections of a worker, and by all of its threads. Asked only for what has to wait."""

    def __init__(self, limit: int) -> None:
        # A quarter is for the holes that bodies of all sizes leave in the allocator's memory (measured: 15 to 35 %).
        self._limit = limit - limit // 4
        self._lock = Lock()
        self.used = 0

    def take(self, size: int) -> bool:
        """False: there is no room for so many bytes more, and nothing was taken."""
        with self._lock:
            if self.used + size > self._limit:
                return False
            self.used += size
            return True

    def give(self, size: int) -> None:
        """So many bytes are free again."""
        with self._lock:
            self.used -= size
