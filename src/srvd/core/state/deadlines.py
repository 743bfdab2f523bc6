"""Points in time by key, of which the least is found without looking at all of them.

Knows no clock, and not what is waited for. Pure.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

__all__ = ["NEVER", "Deadlines"]

NEVER = float("inf")

_FEW = 64
"""Entries of the heap below which those that are out of date are not removed."""

Key = TypeVar("Key", int, str)


class Deadlines(Generic[Key]):
    """One point in time for each key, in monotonic seconds. `NEVER` is the same as none.

    The heap also has entries that are out of date, since the middle of a heap cannot be found: an entry counts if it
    is the one in `_at`.
    """

    __slots__ = ("_at", "_heap")

    def __init__(self) -> None:
        self._at: dict[Key, float] = {}
        self._heap: list[tuple[float, Any]] = []

    def put(self, key: Key, when: float) -> None:
        """Replaces the point in time of a key. O(log n), over many calls."""
        if when == self._at.get(key, NEVER):
            return
        if when == NEVER:
            del self._at[key]
            return
        self._at[key] = when
        if len(self._heap) > _FEW + 2 * len(self._at):
            self._heap = [(at, known) for known, at in self._at.items()]
            heapify(self._heap)
        else:
            heappush(self._heap, (when, key))

    @property
    def least(self) -> float:
        """The earliest of all; `NEVER` if there is none."""
        heap, at = self._heap, self._at
        while heap and at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else NEVER

    def due(self, now: float) -> list[Key]:
        """The keys whose time has come, ascending. They stay until they are put anew."""
        found: set[Key] = set()
        taken = []
        while self.least <= now:
            taken.append(heappop(self._heap))
            found.add(taken[-1][1])
        for entry in taken:
            heappush(self._heap, entry)
        return sorted(found)
