"""Keeps a request's body until it is complete: in memory while there is room, else in a file.

Reads no socket and checks no length: `http/h1/body.py` enforces the limits.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BufferedReader, BytesIO, FileIO

from srvd.worker.net.bodies.budget import IN_MEMORY, Budget
from srvd.worker.net.bodies.pieces import SHORT, append_short

__all__ = ["BodySpool", "unnamed_file"]


_FOLDERS = ("/var/tmp", "/tmp")  # noqa: S108 -- the files have no name, or a random one


class BodySpool:
    """One body: call `add` until it is complete, then `open`, and `let_go` in the end."""

    __slots__ = ("_budget", "_file", "_pieces", "_taken", "began", "size", "trailers")

    def __init__(self, budget: Budget, now: float) -> None:
        self._budget = budget
        self.began = now
        self._taken = 0  # bytes of the budget
        self._pieces: list[bytes | bytearray] = []
        self._file: FileIO | None = None
        self.size = 0
        self.trailers: list[tuple[bytes, bytes]] = []

    def add(self, pieces: Sequence[bytes | bytearray]) -> None:
        """Adds pieces. Raises `OSError` if the disk has no room."""
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
        """Keeps a long piece as it is: growing buffers would leave holes in memory, which for many bodies cost more
        than the bodies. Joins short pieces, because an object for each would cost as much as its bytes.
        """
        if len(piece) > SHORT:
            self._pieces.append(piece)
        else:
            append_short(self._pieces, piece)

    def _has_room(self, size: int) -> bool:
        """Takes memory from the budget; False if the body must go to a file."""
        if not self._budget.take(size, of_long=self.size > IN_MEMORY):
            return False
        self._taken += size
        return True

    def _give_back(self) -> None:
        self._budget.give(self._taken)
        self._taken = 0

    def open(self) -> BytesIO | BufferedReader:
        """Returns the body as a file, positioned at the beginning. Can be called once."""
        if self._file is None:
            data = b"".join(self._pieces)
            self._pieces.clear()
            return BytesIO(data)
        self._file.seek(0)
        return BufferedReader(self._file)

    def finish(self) -> bool:
        """Ends the use of the body. Returns True always: the body was read completely from the connection."""
        self.let_go()
        return True

    def let_go(self) -> None:
        """Closes the file, if there is one. A body in memory stays readable for an application that has kept it."""
        self._give_back()
        if self._file is not None:
            self._file.close()


def _write(file: FileIO, data: bytes | memoryview) -> None:
    """Writes all bytes at once. A buffer would report a full disk only when emptied, in a later read or close."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def unnamed_file() -> int:
    """Opens a file that no other process can find, and that the close deletes. Raises `OSError`.

    Does not use `tempfile`, which takes every zygote several milliseconds to import.
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
