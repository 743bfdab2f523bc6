"""`wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling"): a file as a response's body.

Sends nothing itself: what really is a file is handed to the connection as a span, all else is read in blocks.
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
    """An iterable of the file's blocks; `span()` says whether it can be sent as it is on the disk instead."""

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
        """From the file's position to its end, with the file's own descriptor; None if it has to be read.

        To have a descriptor is not enough: what read() gives may be something else than what is behind it (gzip, a
        decrypting storage, text). So the type must be one of Python's own for plain files, exactly. And the size must
        be an honest one: files of /proc say 0, those of /sys a page, and neither has blocks on a disk.
        """
        file = self.filelike
        if type(file) is _temporary_file():
            file = file.file
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return None
        try:
            file.flush()  # what was written to it just now, before the size is asked for
            offset = file.tell()  # not of `raw`, which may have been read ahead of it
            status = os.fstat(raw.fileno())
        except (OSError, ValueError):  # a pipe, a closed file
            return None
        if not stat.S_ISREG(status.st_mode) or not status.st_size or not status.st_blocks:
            return None
        return Span(raw.fileno(), offset, max(status.st_size - offset, 0))


def _temporary_file() -> object:
    """What `tempfile.NamedTemporaryFile` returns. Not imported: nobody has one who has not imported it."""
    return getattr(sys.modules.get("tempfile"), "_TemporaryFileWrapper", None)
