"""Which files of an application are watched, and which changes count.

Watches nothing: `changes.py` does. Looks at files, and decides.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch

__all__ = ["Extras", "Files", "Signature", "forget_bytecode"]

_STRAY = re.compile(r"\.|__pycache__$|.*~$|#.*#$|4913$|.*\.(pyc|sw[a-z]|tmp)$|.*___jb_\w+___$")
"""What editors and Python put beside files: these names never count in a folder of `reload_extra`."""

Signature = tuple[int, int, int]


class Extras:
    """The files, folders and patterns of `reload_extra`, and folders of templates that the application named."""

    def __init__(self, named: Iterable[str]) -> None:
        self._named = {name.rstrip("/") for name in named}

    def have(self, path: str) -> bool:
        """Tells whether a path is one of these, or in a folder of these."""
        return any(self._has(name, path) for name in self._named)

    @staticmethod
    def _has(name: str, path: str) -> bool:
        if path == name or ("*" in name and fnmatch(path, name)):
            return True
        inside = path.removeprefix(f"{name}/")
        return inside != path and not any(_STRAY.match(part) for part in inside.split("/"))

    def folders(self) -> Iterator[str]:
        """Yields the folders to watch, with those in them."""
        for name in self._named:
            top = name.partition("*")[0].rpartition("/")[0] if "*" in name else name
            if not os.path.isdir(top):
                yield os.path.dirname(top)
                continue
            for folder, inside, _ in os.walk(top):
                inside[:] = [one for one in inside if not _STRAY.match(one)]
                yield folder


class Files:
    """The watched files, with what they looked like when they were loaded."""

    def __init__(self, extra: Sequence[str]) -> None:
        self._extra = tuple(extra)
        self._extras = Extras(extra)
        self._known: dict[str, Signature | None] = {}
        self._aliases: dict[str, str] = {}  # real paths and links on the way, to a file that is reached by them
        self._digests: dict[str, bytes] = {}
        self._folders: dict[str, str] = {}  # their real paths
        self.broken = False  # the code does not load: a file that is missing may be new

    def replace(self, files: Iterable[str], templates: Iterable[str]) -> None:
        """Watches the files of a load that went well, and no others. Those that were watched before keep their looks: a
        change may be on its way here.
        """
        self._extras = Extras((*self._extra, *templates))
        wanted = set(files)
        self._known = {file: looks for file, looks in self._known.items() if file in wanted}
        self._aliases = {path: file for path, file in self._aliases.items() if file in wanted}
        for file in wanted - self._known.keys():
            self.add(file)

    def newer(self, files: Iterable[str], since: float) -> set[str]:
        """Returns the files that are not watched yet, and have changed since `since` (seconds of the clock)."""
        seen = {file: _signature(file) for file in files if file not in self._known}
        return {file for file, looks in seen.items() if looks is not None and looks[0] > since * 1e9}

    def add(self, file: str, looks: Signature | None = None) -> bool:
        """Watches one more file. Returns whether it has changed since it looked as given."""
        now = _signature(file)
        if file in self._known:
            return looks is not None and looks != now
        self._known[file] = now
        folder, name = os.path.split(file)
        real = os.path.join(self._real(folder), name)
        if os.path.islink(file):
            real = os.path.realpath(file)
        if real != file:
            self._aliases[real] = file
            part = file
            while part != "/":
                if os.path.islink(part):
                    self._aliases[part] = file
                part = os.path.dirname(part)
        return looks is not None and looks != now

    def _real(self, folder: str) -> str:
        """Returns the real path of a folder: asked once for each, because an application has hundreds of files."""
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return self._folders[folder]

    def forget(self, file: str) -> None:
        """Takes the file for changed, however it looks."""
        self._known[file] = (0, 0, 0)

    def folders(self) -> set[str]:
        """Returns the folders in which something has to be noticed."""
        found = {os.path.dirname(path) for path in (*self._known, *self._aliases)}
        found = {_existing(folder) for folder in found}
        found.update(self._extras.folders())
        return found

    def concerns(self, path: str) -> bool:
        """Tells whether a change at this path may matter."""
        if path in self._known or path in self._aliases or self._extras.have(path):
            return True
        name = os.path.basename(path)
        return self.broken and not _STRAY.match(name) and (name.endswith(".py") or os.path.isdir(path))

    def changed(self, path: str, *, loading: bool) -> bool:
        """Tells whether what was noticed at this path is a change. `loading`: the application may have made it itself,
        and then it counts if the content is another one.
        """
        file = self._aliases.get(path, path)
        if file not in self._known:
            return True
        if path != file:
            self._folders.clear()  # a link may lead elsewhere
        former, now = self._known[file], _signature(file)
        if former == now:
            return False
        self._known[file] = now
        digest, known = _digest(file), self._digests.get(file)
        self._digests[file] = digest
        return not (loading and digest == known)

    def look(self) -> set[str]:
        """Returns the files that look otherwise than before: for file systems that report no changes."""
        return {file for file, former in self._known.items() if _signature(file) != former}

    def extra_state(self) -> dict[str, Signature | None]:
        """Returns what the extra files look like, for the same."""
        return {
            path: _signature(path)
            for folder in self._extras.folders()
            for name in _names(folder)
            for path in [os.path.join(folder, name)]
            if self._extras.have(path)
        }


def forget_bytecode(file: str) -> None:
    """Removes what Python has cached of a module. Python compares seconds and size alone, so it would take the second
    of two saves within a second for the first (`importlib._bootstrap_external`, "_validate_timestamp_pyc").
    """
    folder, name = os.path.split(file)
    stem = f"{name.removesuffix('.py')}."
    if name.endswith(".py"):
        for cached in _names(f"{folder}/__pycache__"):
            if cached.startswith(stem) and cached.endswith(".pyc"):
                with suppress(OSError):
                    os.unlink(f"{folder}/__pycache__/{cached}")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _signature(path: str) -> Signature | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return hashlib.blake2b(file.read(16 << 20)).digest()
    return b""


def _existing(folder: str) -> str:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder
