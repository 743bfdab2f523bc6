"""The stderr of one zygote or worker: complete lines as they come, and the tail for the record of the death.

Never blocks, keeps a bounded amount, and does not wait for the end of file: a grandchild may hold the pipe for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from srvd.record import Record

__all__ = ["NOTHING", "Output", "Read"]

TAIL = 4096
"""Bytes that are kept of the end of the output."""

LINE = 8192
"""Bytes of the longest line; a longer one comes in pieces of this size."""

_CHUNK = 4096
"""Bytes read in one turn of the loop. A process that writes faster waits. Each line takes some 7 µs to be logged, so a
larger chunk of empty lines could keep the daemon from everything else for half a second."""

_FLOOD = 256
"""If one chunk had so many lines, only so many bytes are read in the next turn."""

_FATAL = b"Fatal Python error: "
"""Beginning of the last report of faulthandler and of the interpreter. The stacks of several threads that follow are
longer than the tail, so this line is kept separately, with the stack of the thread that met the error.
"""

_CURRENT = b"Current thread "
_LONGEST_FATAL = 2048  # bytes

_DRAIN = (
    16  # chunks read at a process's end, as much as a pipe holds; a grandchild may write faster than the daemon reads
)


class Read(Record):
    """The output that was read: the beginning of an incomplete line, the tail, and the report of a fatal error."""

    partial: bytes
    tail: bytes
    fatal: bytes = b""


NOTHING = Read(b"", b"")


class Output:
    """Owns the read end of the pipe."""

    __slots__ = ("_fatal", "_line", "_partial", "_tail", "_taken", "fd")

    def __init__(self, fd: int, line: Callable[[str], None], read: Read = NOTHING) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._line = line
        self._partial, self._tail, self._fatal = read
        self._taken = _CHUNK  # bytes of the next turn

    @property
    def tail(self) -> str:
        """The end of the output, from the beginning of a line if possible. A report of a fatal error that came earlier
        is put in front: the line, and the stack of the thread that met the error.
        """
        text = self._tail.decode("utf-8", "replace")
        if len(self._tail) == TAIL:
            text = text.partition("\n")[2] or text
        fatal = self._fatal.decode("utf-8", "replace")
        return text if fatal.partition("\n")[0] in text else f"{fatal}\n{text}"

    def save(self) -> Read:
        """The state for the next program."""
        return Read(self._partial, self._tail, self._fatal)

    def read(self) -> bool:
        """Read at most one chunk. False at the end of file."""
        return self._take(self._taken) != 0

    def finish(self) -> None:
        """Read the rest, log a last line without an end, and close."""
        for _ in range(_DRAIN):
            if not self._take(_CHUNK):
                break
        if self._partial:
            self._emit(self._partial)
            self._partial = b""
        os.close(self.fd)

    def _take(self, most: int) -> int | None:
        """Read at most `most` bytes. Returns their number; None: there are none now; 0: end of file."""
        try:
            data = os.read(self.fd, most)
        except BlockingIOError:
            return None
        self._tail = (self._tail + data)[-TAIL:]
        *lines, rest = (self._partial + data).split(b"\n")
        self._taken = _FLOOD if len(lines) >= _FLOOD else _CHUNK
        for line in lines:
            self._emit(line)
        while len(rest) >= LINE:
            self._emit(rest[:LINE])
            rest = rest[LINE:]
        self._partial = rest
        return len(data)

    def _in_current_stack(self) -> bool:
        """Whether the stack of the thread that met the error goes on; an empty line ends it."""
        return _CURRENT in self._fatal and not self._fatal.endswith(b"\n")

    def _emit(self, line: bytes) -> None:
        if line.startswith(_FATAL):
            self._fatal = line[:_LONGEST_FATAL]
        elif self._fatal and (line.startswith(_CURRENT) or self._in_current_stack()):
            self._fatal = (self._fatal + b"\n" + line)[:_LONGEST_FATAL]
        for start in range(0, max(len(line), 1), LINE):
            self._line(line[start : start + LINE].decode("utf-8", "replace"))
