"""Holds a request's body until all of it is here: in memory while it is short and there is room, else in a file.

Reads no socket and checks no length: the bounds are kept by `http/h1/body.py`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BufferedReader, BytesIO, FileIO

from srvd.worker.net.budget import IN_MEMORY, Budget
from srvd.worker.net.pieces import SHORT, append_short

__all__ = ["BodySpool", "unnamed_file"]


_FOLDERS = ("/var/tmp", "/tmp")  # noqa: S108 -- the files have no name that anybody could guess


class BodySpool:
    """`add` until the body is complete, then `open`; `let_go` in the end."""

    __slots__ = ("_budget", "_file", "_pieces", "_taken", "size", "trailers")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken = 0  # bytes of the budget
        self._pieces: list[bytes | bytearray] = []
        self._file: FileIO | None = None
        self.size = 0
        self.trailers: list[tuple[bytes, bytes]] = []

    def add(self, pieces: Sequence[bytes | bytearray]) -> None:
        """Raises `OSError` when there is no room for it."""
        size = sum(map(len, pieces))
        self.size += size
        if self._file is None and not self._has_room(size):
            self._file = FileIO(unnamed_file(), "w+")
            pieces = [*self._pieces, *pieces]
            self._pieces.clear()
            self._give_back()
        if self._file is not None:
            _write(self._file, b"".join(pieces))
        else:
            for piece in pieces:
                self._remember(piece)

    def _remember(self, piece: bytes | bytearray) -> None:
        """As it is: a buffer that grows leaves holes behind, and those of many bodies cost more than the bodies. Short
        ones are joined, for an object costs as much as its bytes.
        """
        if len(piece) > SHORT:
            self._pieces.append(piece)
        else:
            append_short(self._pieces, piece)

    def _has_room(self, size: int) -> bool:
        """Takes it from the budget."""
        if self.size > IN_MEMORY or not self._budget.take(size):
            return False
        self._taken += size
        return True

    def _give_back(self) -> None:
        self._budget.give(self._taken)
        self._taken = 0

    def open(self) -> BytesIO | BufferedReader:
        """All of it, to be read from its beginning; once."""
        if self._file is None:
            data = b"".join(self._pieces)
            self._pieces.clear()
            return BytesIO(data)
        self._file.seek(0)
        return BufferedReader(self._file)

    def finish(self) -> bool:
        """The request is over; always True, for all of the body was read from the connection."""
        self.let_go()
        return True

    def let_go(self) -> None:
        """Closes the file, if there is one; what was in memory stays readable for an application that kept it."""
        self._give_back()
        if self._file is not None:
            self._file.close()


def _write(file: FileIO, data: bytes | memoryview) -> None:
    """All of it, at once: a buffer would meet the full disk only when it is emptied, by whoever reads or closes."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def unnamed_file() -> int:
    """The descriptor of a file that no other process can find, and that is gone when it is closed. Raises `OSError`.

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
    return fd
