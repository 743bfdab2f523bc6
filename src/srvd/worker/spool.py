"""Holds a request's body until all of it is here: in memory while it is short, in an unnamed file when it is long.

Reads no socket and checks no length: the bounds are kept by whoever feeds it.
"""

from __future__ import annotations

import os
from io import BufferedReader, BytesIO, FileIO

from srvd.http.head import Environ

__all__ = ["IN_MEMORY", "Spool"]

IN_MEMORY = 1 << 20
"""Bodies longer than this many bytes go to a file."""

_FOLDERS = ("/var/tmp", "/tmp")  # noqa: S108 -- the files have no name that anybody could guess


class Spool:
    """`add` until the body is complete, then `give` it; `close` in the end."""

    __slots__ = ("_file", "_memory", "size")

    def __init__(self) -> None:
        self._memory = BytesIO()
        self._file: FileIO | None = None
        self.size = 0

    def add(self, pieces: list[bytes]) -> None:
        """Raises `OSError` when there is no room for it."""
        if self._file is not None:
            data = b"".join(pieces)
            self.size += len(data)
            _write(self._file, data)
            return
        for piece in pieces:
            self.size += len(piece)
            self._memory.write(piece)
        if self.size > IN_MEMORY:
            self._file = _unnamed_file()
            _write(self._file, self._memory.getbuffer())
            self._memory = BytesIO()

    def give(self, environ: Environ, trailers: list[tuple[bytes, bytes]]) -> None:
        """Puts all of it, to be read from its beginning, where the application finds it."""
        if self._file is None:
            self._memory.seek(0)
            environ["wsgi.input"] = self._memory
        else:
            self._file.seek(0)
            environ["wsgi.input"] = BufferedReader(self._file)
        if environ.pop("HTTP_TRANSFER_ENCODING", None) is not None:
            # RFC 9112 section 7.1.3: decoded, it has a length and is not chunked any more.
            environ["CONTENT_LENGTH"] = str(self.size)
        if trailers:
            environ["srvd.trailers"] = trailers

    def close(self) -> None:
        """Let go of the file, if there is one; memory stays readable for whoever kept the environ."""
        if self._file is not None:
            self._file.close()


def _write(file: FileIO, data: bytes | memoryview) -> None:
    """All of it, at once: a buffer would meet the full disk only when it is emptied, by whoever reads or closes."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _unnamed_file() -> FileIO:
    """A file that no other process can find and that is gone when it is closed. Raises `OSError`.

    Not from `tempfile`: that module costs every zygote several milliseconds of import.
    """
    folder = os.environ.get("TMPDIR") or _FOLDERS[0]
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        fd = os.open(folder, flags | os.O_TMPFILE, 0o600)
    except OSError:  # a file system without O_TMPFILE (EOPNOTSUPP, EISDIR), or no such folder
        path = f"{_FOLDERS[1]}/srvd-{os.urandom(12).hex()}"
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)
    return FileIO(fd, "w+")
