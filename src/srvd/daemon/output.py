"""The stderr of one zygote or worker: complete lines as they come, and the last of it for a certificate of death.

Blocks on nothing, keeps a bounded amount, and never waits for the end of file: a grandchild may hold the pipe for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["Output"]

TAIL = 4096
"""Bytes kept of what was written last."""

LINE = 8192
"""Bytes of the longest line; what is longer comes in pieces of this size."""

_CHUNK = 65536  # one turn of the loop: what a pipe holds
_DRAIN = 16  # chunks read at a process's end; a grandchild could write faster than we read


class Output:
    """Owns the read end of the pipe."""

    __slots__ = ("_line", "_partial", "_tail", "fd")

    def __init__(self, fd: int, line: Callable[[str], None]) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._line = line
        self._partial = b""
        self._tail = b""

    @property
    def tail(self) -> str:
        """The last that was written, from the beginning of a line where that is possible."""
        text = self._tail.decode("utf-8", "replace")
        if len(self._tail) == TAIL:
            text = text.partition("\n")[2] or text
        return text

    def read(self) -> bool:
        """Take what is there, at most one chunk; False at the end of file."""
        return self._take() != 0

    def finish(self) -> None:
        """Take what is left, tell a last line without an end, and close."""
        for _ in range(_DRAIN):
            if not self._take():
                break
        if self._partial:
            self._emit(self._partial)
            self._partial = b""
        os.close(self.fd)

    def _take(self) -> int | None:
        """How many bytes were read; None: there are none now; 0: there never will be."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return None
        self._tail = (self._tail + data)[-TAIL:]
        *lines, rest = (self._partial + data).split(b"\n")
        for line in lines:
            self._emit(line)
        while len(rest) >= LINE:
            self._emit(rest[:LINE])
            rest = rest[LINE:]
        self._partial = rest
        return len(data)

    def _emit(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), LINE):
            self._line(line[start : start + LINE].decode("utf-8", "replace"))
