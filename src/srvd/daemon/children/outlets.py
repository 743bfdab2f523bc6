"""The way out of the performing side: events for the core, lines for the log, the doorbell, and the loop.

Holds no state of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from srvd.core.events import Event
from srvd.daemon.loop import Loop
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record

__all__ = ["Voice"]


class Voice(Record):
    """`emit` may be called while an action is performed: it queues, it does not answer."""

    loop: Loop
    emit: Callable[[Event], None]
    woke: Callable[[], None]  # a request began while nobody watched the scoreboard
    line: Callable[[WorkerId | GenerationId, str], None]  # written to stderr
