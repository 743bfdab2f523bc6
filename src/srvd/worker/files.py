"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): a file as a response's body.

Sends nothing itself: a real file is handed to the connection as a span for sendfile(2), all else is read in blocks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["BlockWrapper", "FileWrapper", "Span"]

_BLOCK = 65_536


class Span(NamedTuple):
    """Bytes of an open file; the descriptor is the wrapped file's."""

    fd: int
    offset: int
    length: int


class FileWrapper:
    """An iterable of the file's blocks; `span()` says whether it can go by sendfile(2) instead."""

    def __init__(self, filelike: Any, blksize: int = _BLOCK) -> None:
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block: bytes = self.filelike.read(self.blksize)
        if not block:
            raise StopIteration
        return block

    def span(self) -> Span | None:
        """From the file's position to its end; None if it is no regular file with a descriptor of its own."""
        try:
            fd = self.filelike.fileno()
            offset = self.filelike.tell()
            status = os.fstat(fd)
        except (AttributeError, OSError, ValueError):  # BytesIO, a pipe, a closed file: it is read instead
            return None
        if not stat.S_ISREG(status.st_mode) or not isinstance(offset, int):
            return None
        return Span(fd, offset, max(status.st_size - offset, 0))


class BlockWrapper(FileWrapper):
    """The same where sendfile(2) is no way, because what is sent has to be encrypted."""

    def span(self) -> None:
        """It is always read."""
