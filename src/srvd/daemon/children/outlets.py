"""What the code of child processes may call: emit an event, log a line, wake the watcher, use the loop.

Holds no state of its own.
"""

from __future__ import annotations

from collections.abc import Callable

from srvd.core.events import Event
from srvd.daemon.loop import Loop
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record

__all__ = ["Outlets"]


class Outlets(Record):
    """`emit` may be called while an action is performed: the event is queued, not handled at once."""

    loop: Loop
    emit: Callable[[Event], None]
    wake_watcher: Callable[[], None]  # a request began while the scoreboard was not watched
    line: Callable[[WorkerId | GenerationId, str], None]  # a line that the process wrote to stderr
