"""Descriptors that outlive a program, by name: a state that is handed over refers to them without their numbers.

Opens nothing. Does not know where descriptors come from: kept over exec, passed by a process, or from systemd's store.
"""

from __future__ import annotations

import os

from srvd.errors import Unsupported

__all__ = ["FdTable"]


class FdTable:
    """A table of names and descriptors. `give` leaves the caller the owner; `take` makes the caller the owner."""

    def __init__(self, table: dict[str, int] | None = None) -> None:
        self.table = table or {}

    def give(self, name: str, fd: int) -> None:
        """Add a descriptor. Raises `AssertionError`: the name is in use, which is a bug in srvd."""
        assert name not in self.table, f"two descriptors are called {name}"
        self.table[name] = fd

    def take(self, name: str) -> int:
        """Return the descriptor, close-on-exec from here on. Raises `Unsupported`: missing or closed."""
        fd = self.find(name)
        if fd < 0:
            raise Unsupported(f"take over the descriptor {name!r}: it was not handed over")
        return fd

    def find(self, name: str) -> int:
        """Return the descriptor like `take`; -1 if the name is missing. Raises `Unsupported`: closed."""
        fd = self.table.get(name, -1)
        if fd >= 0:
            try:
                os.set_inheritable(fd, False)
            except OSError as exc:
                raise Unsupported(f"take over the descriptor {name!r}: {fd}: {exc.strerror}") from exc
        return fd
