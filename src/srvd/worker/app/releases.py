"""Reports an imported file that is newer than the load: the process has code of two releases then.

Stands first in `sys.meta_path`, so that it runs at imports only, and costs a request no time. Finds no module by
itself: calls the other finders, and looks at their results.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["Watch"]


class Watch:
    """The watch of one process; a fork continues its parent's."""

    def __init__(self, root: str, watcher: str = "") -> None:
        """`root`: the folder to which reported names are relative. `watcher`: of a pool under development."""
        self.watcher = watcher  # its address (`wire.paths.watcher_address`); "": none
        self._root = os.path.join(root, "")
        # Of the clock, not of a file: the kernel stamps a file with its last tick, which is never later than the clock.
        self._since = time.time()
        self._file = ""  # the newer file seen last
        self._told = False
        self._say: Callable[[str], bool] | None = None
        self._pid = 0
        self.each: Callable[[str], object] | None = None
        """Called with each file that is imported, in a pool under development."""

    def begin(self) -> None:
        """Watches imports from now on."""
        sys.meta_path.insert(0, self)

    def tell_to(self, say: Callable[[str], bool]) -> None:
        """Calls `say` with the first newer file, once; with the next one, too, if `say` returns False."""
        self._say, self._pid = say, os.getpid()
        self._tell()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns what the other finders find, for the import system (`importlib.abc.MetaPathFinder`)."""
        for finder in tuple(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                if self.each is not None and spec.has_location and spec.origin:
                    self.each(spec.origin)
                if not self._told and spec.has_location and spec.origin and self._is_newer(spec.origin):
                    self._file = spec.origin.removeprefix(self._root)
                    self._tell()
                return spec
        return None

    def _is_newer(self, file: str) -> bool:
        """Tells whether a file is newer than the load, by its mtime or, for a file copied with its old mtime, by its
        ctime.
        """
        try:
            found = os.stat(file)
        except OSError:  # within an archive
            return False
        return max(found.st_mtime, found.st_ctime) > self._since

    def _tell(self) -> None:
        # A process that the application forked has the link, too, but is no worker.
        if self._file and not self._told and self._say is not None and self._pid == os.getpid():
            self._told = self._say(self._file)
