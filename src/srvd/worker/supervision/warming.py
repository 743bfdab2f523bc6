"""Requests paths of the application before a worker serves, and lists the modules imported by that.

Refuses no worker for an answer: a bad one is a line in the log. Makes the requests with the health probe, `probe.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING

from srvd.wire.links import Modules, Probed, fitting_modules
from srvd.worker.supervision.probe import probe

if TYPE_CHECKING:
    from srvd.worker.context import WorkerContext

_FINE = ("100-399",)
"""Statuses without a warning: the view of a redirect to a login is imported, too."""

__all__ = ["ask", "imported_since", "modules"]


def ask(context: WorkerContext, paths: Sequence[str], done: Callable[[], object]) -> None:
    """Makes a GET request for each path, in this order, and calls `done` after the last reply, at once or later."""
    left = len(paths)

    def take(result: Probed) -> None:
        nonlocal left
        left -= 1
        if not result.healthy:
            context.log.warning(f"warming: {result.text}")
        if not left:
            done()

    for path in paths:
        probe(context, path, _FINE, take)
    if not paths:
        done()


def modules() -> frozenset[str]:
    """Returns the names of all imported modules."""
    return frozenset(sys.modules)


def imported_since(before: Set[str]) -> Modules:
    """Returns the modules imported since `before`, in the order in which their imports began. Leaves out modules that
    another process could not import: those not loaded from files under their own names.
    """
    new = [name for name in tuple(sys.modules) if name not in before and _is_from_file(name)]
    return fitting_modules(new)


def _is_from_file(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "name", "") == name and bool(getattr(spec, "has_location", False))
