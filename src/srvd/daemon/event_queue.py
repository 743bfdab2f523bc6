"""One event after the other: what is put while one is handled waits, and nothing is handled inside of something else.

Knows no core and no loop; its user says what to do with an event, and what to do when there are no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from srvd.core.events import Event

__all__ = ["EventQueue"]


class EventQueue:
    def __init__(self, handle: Callable[[Event], None], settle: Callable[[], None]) -> None:
        self._handle = handle
        self._settle = settle
        self._waiting: deque[Event] = deque()
        self._handling = False

    def put(self, event: Event) -> bool:
        """True if it was handled, and whatever came of that; False if that is done by who handles one now."""
        self._waiting.append(event)
        if self._handling:
            return False
        self._handling = True
        try:
            while self._waiting:
                self._handle(self._waiting.popleft())
        finally:
            self._handling = False
            self._settle()  # after a bug, too: by their deadlines those are found who wait for the rest of the events
        return True
