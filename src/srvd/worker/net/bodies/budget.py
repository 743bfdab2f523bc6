"""Limits the memory of a worker for waiting bodies: of requests until they are complete, of responses until they are
sent.

Counts bytes, and holds none itself.
"""

from __future__ import annotations

from threading import Lock

__all__ = ["IN_MEMORY", "Budget"]

IN_MEMORY = 1 << 20
"""The most bytes of one body kept in memory; a longer body goes to a file, unless it is a request's and there is plenty
of room.
"""


class Budget:
    """The budget of a worker, shared by all its connections and threads. Called only for bytes that have to wait."""

    def __init__(self, limit: int, response_limit: int) -> None:
        """`response_limit`: the most bytes of one response that may wait, in memory and in files together."""
        # A quarter is left for holes that bodies of all sizes leave in the allocator's memory (measured: 15 to 35 %).
        self._limit = limit - limit // 4
        self._plenty = limit // 4
        self._lock = Lock()
        self.response_limit = response_limit
        self.used = 0

    def take(self, size: int, *, of_long: bool = False) -> bool:
        """Takes `size` bytes of the budget. Returns False, and takes none, if there is no room; for a body longer than
        `IN_MEMORY` there is room only while a quarter of the budget is enough for all bodies.
        """
        with self._lock:
            if self.used + size > (self._plenty if of_long else self._limit):
                return False
            self.used += size
            return True

    def give(self, size: int) -> None:
        """Gives `size` bytes back."""
        with self._lock:
            self.used -= size
