"""Sees files that are imported although they are newer than the load: the process has code of two releases then.

Stands first in `sys.meta_path`, so it is asked at imports alone, and costs a request nothing. It finds no module by
itself: it asks the others, and looks at what they found.
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
    """One for each process; a fork goes on with its parent's."""

    def __init__(self, root: str) -> None:
        """`root`: the folder from which files are named."""
        self._root = os.path.join(root, "")
        # The clock's time, and not a file's: a file is stamped with the last tick, which is never later.
        self._since = time.time()
        self._file = ""  # the first that was seen
        self._told = False
        self._say: Callable[[str], bool] | None = None
        self._pid = 0

    def begin(self) -> None:
        """Look at imports from now on."""
        sys.meta_path.insert(0, self)

    def tell_to(self, say: Callable[[str], bool]) -> None:
        """Call `say` with the first such file, once; again with the next one if it returns False."""
        self._say, self._pid = say, os.getpid()
        self._tell()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What the other finders find; the import system asks for it (`importlib.abc.MetaPathFinder`)."""
        for finder in tuple(sys.meta_path):
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = None if find is None else find(name, path, target)
            if spec is not None:
                if not self._told and spec.has_location and spec.origin and self._is_newer(spec.origin):
                    self._file = spec.origin.removeprefix(self._root)
                    self._tell()
                return spec
        return None

    def _is_newer(self, file: str) -> bool:
        """By the time of its content or, for files that were put there with an older one, of its entry."""
        try:
            found = os.stat(file)
        except OSError:  # within an archive
            return False
        return max(found.st_mtime, found.st_ctime) > self._since

    def _tell(self) -> None:
        # A process that the application forked has the link, too, but is no worker.
        if self._file and not self._told and self._say is not None and self._pid == os.getpid():
            self._told = self._say(self._file)
