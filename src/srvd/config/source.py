"""Where a configuration comes from: a file, flags, an environment. Reads the same ones each time.

Knows nothing of command lines: `cli.py` has taken them apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from srvd.config.load import DEFAULT_FILE, load
from srvd.config.settings import Config
from srvd.record import Record

__all__ = ["Source", "Spelled"]


class Spelled(Record):
    """A source as it is handed over; the environment goes with the process."""

    file: str | None
    texts: dict[str, str]  # flags with one value
    lists: dict[str, tuple[str, ...]]  # flags that may be repeated


class Source:
    """`given` by flag, as `config/settings.py` declares it; `file` absolute, or None for none at all."""

    __slots__ = ("_environ", "_read", "file", "given")

    def __init__(self, file: str | None, given: Mapping[str, object]) -> None:
        self.file = file
        self.given = dict(given)
        self._environ = dict(os.environ)
        self._read = False  # before: then nothing is waited for

    @classmethod
    def find(cls, path: str | None, given: Mapping[str, object]) -> Source:
        """The file at `path`; `./srvd.toml` without one, if it exists now."""
        if path is None and os.path.exists(DEFAULT_FILE):
            path = DEFAULT_FILE
        return cls(os.path.abspath(path) if path else None, given)

    def read(self) -> Config:
        """The configuration as it is now. Raises `ConfigInvalid`."""
        again, self._read = self._read, True
        return load(self.file, self.given, self._environ, again=again)

    def carry(self) -> Spelled:
        """What another program needs to read the same."""
        texts = {flag: value for flag, value in self.given.items() if isinstance(value, str)}
        lists = {flag: value for flag, value in self.given.items() if isinstance(value, tuple)}
        return Spelled(self.file, texts, lists)

    @classmethod
    def resume(cls, spelled: Spelled) -> Source:
        """Read on what `carry` told."""
        source = cls(spelled.file, {**spelled.texts, **spelled.lists})
        source._read = True
        return source
