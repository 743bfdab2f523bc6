"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): a file as a response's body.

Sends nothing itself: gives a plain file to the connection as a span, and reads any other object in blocks.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from io import BufferedRandom, BufferedReader, FileIO
from typing import Any

from srvd.worker.net.file_span import Span

__all__ = ["FileWrapper"]

_BLOCK = 65_536


class FileWrapper:
    """An iterable of the file's blocks; `span()` returns the part to send straight from the disk, if possible."""

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
        """Returns the part from the file's position to its end, with the file's own descriptor; None if the file must
        be read.

        A descriptor is not enough: read() may return other bytes than the file behind it has (gzip, a decrypting
        storage, text). So the type must be exactly one of Python's own for plain files. The size must be true, too:
        files of /proc report 0, those of /sys a page, and neither has blocks on a disk.
        """
        file = self.filelike
        if type(file) is _temporary_file():
            file = file.file
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return None
        try:
            file.flush()  # bytes that the application has just written, before fstat
            offset = file.tell()  # not of `raw`, from which the buffer may have read ahead
            status = os.fstat(raw.fileno())
        except (OSError, ValueError):  # a pipe, a closed file
            return None
        if not stat.S_ISREG(status.st_mode) or not status.st_size or not status.st_blocks:
            return None
        return Span(raw.fileno(), offset, max(status.st_size - offset, 0))


def _temporary_file() -> object:
    """Returns the type of `tempfile.NamedTemporaryFile`'s result. Imports nothing: an application with such a file has
    imported `tempfile`.
    """
    return getattr(sys.modules.get("tempfile"), "_TemporaryFileWrapper", None)
