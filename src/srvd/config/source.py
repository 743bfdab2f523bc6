"""The sources of a configuration: a file, flags, an environment. Each reload reads the same ones.

Knows no command line: `cli/` has parsed it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from srvd.config.adapt import development
from srvd.config.check import anchor
from srvd.config.load import DEFAULT_FILE, load
from srvd.config.settings import Config
from srvd.errors import ConfigInvalid
from srvd.linux.interpreter import typed_interpreter
from srvd.linux.processes.cwd import named_folder
from srvd.record import Record

__all__ = ["Source", "Spelled"]


class Spelled(Record):
    """A source as it is saved for the next program. The environment stays with the process."""

    file: str | None
    texts: dict[str, str]  # flags with one value
    lists: dict[str, tuple[str, ...]]  # flags that may be repeated
    folder: str = ""  # "" in states of older versions
    python: str = ""  # likewise


class Source:
    """What a configuration is read from.

    file: the absolute path of the file; None: without a file.
    given: values by flag, as `config/settings.py` declares it.
    folder, python: working directory and interpreter, by the names they had at the start. With a link in the name,
        such as `current`, they are those of the new release after a deploy, also after an upgrade of the daemon.
    """

    __slots__ = ("_environ", "_read", "file", "folder", "given", "python")

    def __init__(self, file: str | None, given: Mapping[str, object], folder: str = "", python: str = "") -> None:
        self.file = file
        self.given = dict(given)
        self.folder = folder or named_folder(os.environ)
        self.python = python or typed_interpreter(self.folder)
        self._environ = dict(os.environ)
        self._read = False  # was it read before? then a pipe is not waited for

    @classmethod
    def find(cls, path: str | None, given: Mapping[str, object]) -> Source:
        """Returns the source with the file at `path`; None: with `./srvd.toml` if it exists. Raises `ConfigInvalid`."""
        if path is None and os.path.exists(DEFAULT_FILE):
            path = DEFAULT_FILE
            owner = os.stat(path).st_uid
            if os.geteuid() == 0 and owner != 0:
                raise ConfigInvalid(
                    f"read ./{path}: it belongs to uid {owner}, and root would run what it names; nothing was started",
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
        """Reads the configuration as it is now. Raises `ConfigInvalid`."""
        again, self._read = self._read, True
        config = load(self.file, self.given, self._environ, folder=self.folder, again=again)
        pools = {
            name: pool if pool.python else pool._replace(python=self.python) for name, pool in config.pools.items()
        }
        config = config._replace(pools=pools, folder=self.folder)
        if not config.developed:
            return config
        if again and development.BEGUN not in os.environ:
            return development.switched_off(config)
        return development.adapted(config, again=again)

    def save(self) -> Spelled:
        """Returns what the next program needs to read the same configuration."""
        texts = {flag: value for flag, value in self.given.items() if isinstance(value, str)}
        lists = {flag: value for flag, value in self.given.items() if isinstance(value, tuple)}
        return Spelled(self.file, texts, lists, self.folder, self.python)

    @classmethod
    def restore(cls, spelled: Spelled) -> Source:
        """Makes a source of what `save` returned."""
        source = cls(spelled.file, {**spelled.texts, **spelled.lists}, spelled.folder, spelled.python)
        source._read = True
        return source
