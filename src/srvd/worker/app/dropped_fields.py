"""Tells once of each field of an application's responses that the worker drops.

Drops none: `http/h1/response.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srvd.log import Log

__all__ = ["DroppedFields"]


class DroppedFields:
    """Those of all responses in one worker."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._told: set[str] = set()

    def tell(self, label: str, names: Iterable[str]) -> None:
        """Logs a warning for each name that is new. `label`: of the request."""
        for name in names:
            if name not in self._told:
                self._told.add(name)
                self._log.warning(
                    f"{label}: the application's field {name} was dropped: it speaks of the connection, which is "
                    f"the server's; this worker drops it from now on without a word"
                )
