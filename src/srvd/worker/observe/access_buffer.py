"""Keeps lines of an access log until they are written, in memory that the zygote shares, and that outlives the
worker.

Formats no line and writes none. One process adds at a time, under a lock of its own.
"""

from __future__ import annotations

import mmap

__all__ = ["ROOM", "AccessBuffer"]

_SIZE = 80 << 10
_HEAD = 8
ROOM = _SIZE - _HEAD
"""Bytes of lines."""


class AccessBuffer:
    """A buffer, empty at first. Raises `OSError` if the kernel gives no memory."""

    __slots__ = ("_map", "_sizes", "size")

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SIZE)  # MAP_SHARED | MAP_ANONYMOUS: forks share the memory
        self._map.seek(_HEAD)
        self._sizes = memoryview(self._map)[:_HEAD].cast("Q")
        self.size = 0
        """Bytes added by this process and not yet written; only `take` sees lines added by another process."""

    def add(self, line: bytes) -> int:
        """Adds a line, with its newline, and returns how many bytes wait now. Raises `ValueError` without room."""
        self._map.write(line)
        # Last, and in one store: a worker killed before it leaves whole lines only.
        self._sizes[0] = self.size = size = self.size + len(line)
        return size

    def take(self) -> bytes:
        """Returns the waiting lines, also those of another process, and keeps them until `clear`."""
        return self._map[_HEAD : _HEAD + min(self._sizes[0], ROOM)]

    def clear(self) -> None:
        """Empties the buffer, after the lines were written: a worker killed in between leaves lines to be written
        twice, but loses none.
        """
        self._sizes[0] = self.size = 0
        self._map.seek(_HEAD)

    def close(self) -> None:
        """Unmaps the memory in this process; the zygote, or the worker, keeps it."""
        self._sizes.release()
        self._map.close()
