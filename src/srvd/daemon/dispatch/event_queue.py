"""One event after the other: what is put while one is handled waits, and nothing is handled inside of something else.

Knows no core and no loop. Whatever emits events is given the queue, and made before the part that handles them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from srvd.core.events import Event

__all__ = ["EventQueue"]


class EventQueue:
    """Events wait until `serve` names their handler."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._handler: tuple[Callable[[Event], None], Callable[[], None]] | None = None
        self._handling = False

    def put(self, event: Event) -> None:
        """Have it handled: before this returns, unless another one is being handled, or there is no handler yet."""
        self._waiting.append(event)
        self._drain()

    def serve(self, handle: Callable[[Event], None], settle: Callable[[], None]) -> None:
        """Handle what waits, and all that comes. `settle` is called whenever no more events wait."""
        self._handler = handle, settle
        if self._waiting:
            self._drain()

    def _drain(self) -> None:
        if self._handling or self._handler is None:
            return
        handle, settle = self._handler
        self._handling = True
        try:
            while self._waiting:
                handle(self._waiting.popleft())
        finally:
            self._handling = False
            settle()  # after a bug, too: by their deadlines those are found who wait for the rest of the events
