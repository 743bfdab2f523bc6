"""Asks the application paths before a worker serves, and tells what that has imported.

Judges no answer: a problem is a line in the log. The health probe is `wsgi/probe.py`, which this one asks with.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Set
from typing import TYPE_CHECKING

from srvd.wire.links import Modules, fitting_modules
from srvd.worker.wsgi.probe import probe

if TYPE_CHECKING:
    from srvd.worker.context import WorkerContext

_FINE = ("100-399",)
"""A redirect to a login has imported what there is to import."""

__all__ = ["ask", "imported_since", "modules"]


def ask(service: WorkerContext, paths: Iterable[str]) -> None:
    """GET on each path, in this order."""
    for path in paths:
        answer = probe(service, path, _FINE)
        if not answer.healthy:
            service.log.warning(f"warming: {answer.text}")


def modules() -> frozenset[str]:
    """Those that are imported now."""
    return frozenset(sys.modules)


def imported_since(before: Set[str]) -> Modules:
    """Those that are now, and were not then, in the order in which their imports began; as far as another process can
    import them: they came from files, under their own names.
    """
    new = [name for name in tuple(sys.modules) if name not in before and _is_from_file(name)]
    return fitting_modules(new)


def _is_from_file(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "name", "") == name and bool(getattr(spec, "has_location", False))
