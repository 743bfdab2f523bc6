"""The last events, numbered, for subscribers that come late or read slowly.

Knows no subscriber and no socket. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srvd.record import Record
from srvd.wire.codec import encode
from srvd.wire.messages import event

__all__ = ["Entry", "EventLog", "EventLogState"]

MOST_EVENTS = 1000
MOST_BYTES = 4 << 20


class Entry(Record):
    topic: str
    frame: bytes  # encoded once for all subscribers


class EventLogState(Record):
    """The log as it is saved: the entries up to `newest`, without a gap."""

    newest: int
    entries: tuple[Entry, ...]


class EventLog:
    """EventLogState from `oldest` to `newest`, without a gap; sequence numbers count from 1."""

    __slots__ = ("_entries", "_size", "newest", "oldest")

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._size = 0  # bytes of all frames
        self.oldest = 1
        self.newest = 0

    def add(self, at: float, topic: str, name: str, data: Mapping[str, Any]) -> None:
        """Appends an event, and drops the oldest beyond the bounds. Raises `BadFrame` when it cannot be encoded.

        `at`: Unix time in seconds.
        """
        frame = encode(event(self.newest + 1, at, topic, name, data))
        self.newest += 1
        self._entries[self.newest] = Entry(topic, frame)
        self._size += len(frame)
        while len(self._entries) > MOST_EVENTS or (self._size > MOST_BYTES and self.oldest < self.newest):
            self._size -= len(self._entries.pop(self.oldest).frame)
            self.oldest += 1

    def save(self) -> EventLogState:
        """Returns what the next program needs to go on with the same events and numbers."""
        return EventLogState(self.newest, tuple(self._entries.values()))

    def restore(self, events: EventLogState) -> None:
        """Takes what `save` returned."""
        self.newest = events.newest
        self.oldest = events.newest - len(events.entries) + 1
        self._entries = dict(enumerate(events.entries, self.oldest))
        self._size = sum(len(entry.frame) for entry in events.entries)

    def __getitem__(self, seq: int) -> Entry:
        """Returns the event with this number, from `oldest` to `newest`."""
        return self._entries[seq]

    def last_of(self, topics: frozenset[str]) -> int:
        """Returns the number of the newest event of these topics (empty: of all); 0 when there is none."""
        for seq in range(self.newest, self.oldest - 1, -1):
            if not topics or self._entries[seq].topic in topics:
                return seq
        return 0
