"""What a client has sent on a WebSocket and the application has not taken: messages, and the end behind them.

Reads no socket, and knows no message of ASGI.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from srvd.http.ws.reader import Closed, Event, Pong

__all__ = ["Inbox"]

_MOST_KEPT = 262_144
"""Bytes of messages; then nothing more is read."""


class Inbox:
    """The messages of one WebSocket. `end` is its end, once there is one."""

    __slots__ = ("_messages", "_size", "end")

    def __init__(self) -> None:
        self._messages: deque[str | bytes] = deque()
        self._size = 0  # of the messages
        self.end: Closed | None = None

    @property
    def full(self) -> bool:
        """Whether nothing more is to be read for now."""
        return self._size > _MOST_KEPT

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Closed):
                self.close(event)
            elif not isinstance(event, Pong):
                self._messages.append(event)
                self._size += len(event)

    def close(self, end: Closed) -> None:
        """Adds the end, behind all messages; a second one is dropped."""
        if self.end is None:
            self.end = end

    def take(self) -> str | bytes | None:
        """Returns the next message; None if there is none."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._size -= len(message)
        return message
