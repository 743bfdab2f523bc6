"""Where a configuration comes from: a file, flags, an environment. Reads the same ones each time.

Knows nothing of command lines: `cli/` has taken them apart.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from srvd.config.check import anchor
from srvd.config.load import DEFAULT_FILE, load
from srvd.config.settings import Config
from srvd.errors import ConfigInvalid
from srvd.linux.cwd import named_folder
from srvd.linux.interpreter import typed_interpreter
from srvd.record import Record

__all__ = ["Source", "Spelled"]


class Spelled(Record):
    """A source as it is handed over; the environment goes with the process."""

    file: str | None
    texts: dict[str, str]  # flags with one value
    lists: dict[str, tuple[str, ...]]  # flags that may be repeated
    folder: str = ""  # both were not carried before
    python: str = ""


class Source:
    """`given` by flag, as `config/settings.py` declares it; `file` absolute, or None for none at all.

    `folder` and `python` are the working directory and the interpreter by the names that they were called by at the
    start. Names with a link in them lead to another release after a deploy, also when the daemon's program was
    replaced by then.
    """

    __slots__ = ("_environ", "_read", "file", "folder", "given", "python")

    def __init__(self, file: str | None, given: Mapping[str, object], folder: str = "", python: str = "") -> None:
        self.file = file
        self.given = dict(given)
        self.folder = folder or named_folder(os.environ)
        self.python = python or typed_interpreter(self.folder)
        self._environ = dict(os.environ)
        self._read = False  # before: then nothing is waited for

    @classmethod
    def find(cls, path: str | None, given: Mapping[str, object]) -> Source:
        """The file at `path`; `./srvd.toml` without one, if it exists now. Raises `ConfigInvalid`."""
        if path is None and os.path.exists(DEFAULT_FILE):
            path = DEFAULT_FILE
            owner = os.stat(path).st_uid
            if os.geteuid() == 0 and owner != 0:
                raise ConfigInvalid(
                    f"read ./{path}: it belongs to uid {owner}, and root would do what it says; nothing was started",
                    hint=f"name it to have it read all the same: -c {path}",
                )
        source = cls(None, given)
        if path:
            try:
                source.file = anchor("path", path, source.folder)
            except FileNotFoundError as exc:
                raise ConfigInvalid(
                    f"read {path}: the folder that srvd was started in has been removed; nothing was changed",
                    hint="start it in a folder that exists, or name the file by its whole path",
                ) from exc
        return source

    def read(self) -> Config:
        """The configuration as it is now. Raises `ConfigInvalid`."""
        again, self._read = self._read, True
        config = load(self.file, self.given, self._environ, folder=self.folder, again=again)
        pools = {
            name: pool if pool.python else pool._replace(python=self.python) for name, pool in config.pools.items()
        }
        return config._replace(pools=pools, folder=self.folder)

    def carry(self) -> Spelled:
        """What another program needs to read the same."""
        texts = {flag: value for flag, value in self.given.items() if isinstance(value, str)}
        lists = {flag: value for flag, value in self.given.items() if isinstance(value, tuple)}
        return Spelled(self.file, texts, lists, self.folder, self.python)

    @classmethod
    def resume(cls, spelled: Spelled) -> Source:
        """Read on what `carry` told."""
        source = cls(spelled.file, {**spelled.texts, **spelled.lists}, spelled.folder, spelled.python)
        source._read = True
        return source
