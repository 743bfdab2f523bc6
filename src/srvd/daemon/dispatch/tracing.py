"""The trace of a daemon at log_level = "debug": each event and each action but notes, one line for each.

The lines are those of a transcript (`core/trace.py`), so that a log can be played again.
"""

from __future__ import annotations

from collections.abc import Callable

from srvd.core.actions import Note
from srvd.log import Log

__all__ = ["Trace", "tracer"]

Trace = Callable[[str, object], None]
"""Called with ">" and an event, or with "<" and an action; a note has no line, since the log has its text."""


def tracer(log: Log, level: str) -> Trace | None:
    """None for any other level."""
    if level != "debug":
        return None
    # Here, not above: it costs 5 ms of import time.
    from srvd.core.trace import spell

    def trace(way: str, what: object) -> None:
        if not isinstance(what, Note):
            log.debug(f"{way} {spell(what)}")

    return trace
