"""Descriptors that outlive a program, by name: what a state that is handed over speaks of without knowing numbers.

Opens nothing. How they came here – kept over exec, passed by somebody, out of systemd's store – is the giver's.
"""

from __future__ import annotations

import os

from srvd.errors import Unsupported

__all__ = ["FdTable"]


class FdTable:
    """A table of names and descriptors. Giving, they stay the giver's; taking, each one becomes the taker's."""

    def __init__(self, table: dict[str, int] | None = None) -> None:
        self.table = table or {}

    def give(self, name: str, fd: int) -> None:
        """Raises `AssertionError`: two of one name are a bug of ours."""
        assert name not in self.table, f"two descriptors are called {name}"
        self.table[name] = fd

    def take(self, name: str) -> int:
        """The descriptor, close-on-exec from here on. Raises `Unsupported`: there is none, or it is closed."""
        fd = self.find(name)
        if fd < 0:
            raise Unsupported(f"take over the descriptor {name!r}: it was not handed over")
        return fd

    def find(self, name: str) -> int:
        """The same for one that may be missing: -1 then."""
        fd = self.table.get(name, -1)
        if fd >= 0:
            try:
                os.set_inheritable(fd, False)
            except OSError as exc:
                raise Unsupported(f"take over the descriptor {name!r}: {fd}: {exc.strerror}") from exc
        return fd
