"""Sets the title that `ps` shows for this process.

Not `import setproctitle`: that package imports `logging` first (8 ms), which no zygote needs, so this module loads only
the package's extension module.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import PathFinder

__all__ = ["set_title"]


def _find() -> Callable[[str], None]:
    package = PathFinder.find_spec("setproctitle")
    where = package.submodule_search_locations if package is not None else None
    spec = PathFinder.find_spec("setproctitle._setproctitle", where) if where is not None else None
    if spec is None or spec.loader is None:  # an installation without it only looks less nice in `ps`
        return lambda title: None
    module = spec.loader.create_module(spec)
    if module is None:
        return lambda title: None
    spec.loader.exec_module(module)
    setter: Callable[[str], None] = module.setproctitle
    return setter


set_title: Callable[[str], None] = _find()
"""Sets the title, cut to the length of the process's arguments and environment."""
