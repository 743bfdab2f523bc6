"""Lines of an access log that wait to be written, in memory that outlives its worker: the zygote that forked it has it.

Spells no line and writes none. One process adds at a time, within a lock of its own.
"""

from __future__ import annotations

import mmap

__all__ = ["ROOM", "AccessBuffer"]

_SIZE = 80 << 10
_HEAD = 8
ROOM = _SIZE - _HEAD
"""Bytes of lines."""


class AccessBuffer:
    """Empty at first. Raises `OSError` when there is no memory."""

    __slots__ = ("_map", "_sizes", "size")

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, _SIZE)  # MAP_SHARED | MAP_ANONYMOUS: forked, it stays one
        self._map.seek(_HEAD)
        self._sizes = memoryview(self._map)[:_HEAD].cast("Q")
        self.size = 0
        """Bytes that wait; what another process has added is seen by `take` alone."""

    def add(self, line: bytes) -> int:
        """One more, with its end; how many bytes wait now. Raises `ValueError`: there is no room."""
        self._map.write(line)
        # Last, and in one store: whoever is killed before it leaves whole lines.
        self._sizes[0] = self.size = size = self.size + len(line)
        return size

    def take(self) -> bytes:
        """All that waits, by the word of the memory; it still does until `clear`."""
        return self._map[_HEAD : _HEAD + min(self._sizes[0], ROOM)]

    def clear(self) -> None:
        """It is written. Not before: whoever is killed meanwhile has a line twice then, and none lost."""
        self._sizes[0] = self.size = 0
        self._map.seek(_HEAD)

    def close(self) -> None:
        """Let go of the memory; the process that forked, or was forked, keeps it."""
        self._sizes.release()
        self._map.close()
