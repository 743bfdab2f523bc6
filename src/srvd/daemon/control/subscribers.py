"""The subscribers of events: each has a position in the event log, and is sent the next event when it reads.

A subscriber has no queue of its own: if it is too slow, the log has dropped events it has not seen, and it is told how
many.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from srvd.daemon.control.connection import ControlConnection
from srvd.daemon.control.event_log import EventLog
from srvd.errors import Conflict
from srvd.quoting import MARK
from srvd.wire.codec import RESPONSES, Decoder, encode
from srvd.wire.commands import VIEWER
from srvd.wire.messages import lost, public

__all__ = ["Subscribers"]


class Watch:
    __slots__ = ("number", "seen", "topics")

    def __init__(self, number: int, topics: frozenset[str], seen: int) -> None:
        self.number = number  # of the request
        self.topics = topics  # empty: all
        self.seen = seen  # the last event that was sent or passed over


class Subscribers:
    __slots__ = ("_watches", "events")

    def __init__(self) -> None:
        self.events = EventLog()
        self._watches: dict[ControlConnection, Watch] = {}

    def __contains__(self, connection: ControlConnection) -> bool:
        return connection in self._watches

    def begin(self, connection: ControlConnection, number: int, args: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the peer a subscriber, and returns the answer to its request. Raises `Conflict`.

        `pump` then sends the events that the peer has missed.
        """
        if connection in self._watches:
            raise Conflict("watch: this connection watches already", hint="cancel that request first, or connect anew")
        events, since = self.events, args["since"]
        topics = frozenset(args["topics"])
        # A larger number is from before a restart of the daemon: then the peer is sent all events.
        seen = events.newest if since < 0 else since if since <= events.newest else 0
        self._watches[connection] = Watch(number, topics, seen)
        return {"oldest": events.oldest, "newest": events.newest, "last": events.last_of(topics)}

    def end(self, connection: ControlConnection, number: int = 0) -> bool:
        """Ends the peer's subscription, if it has the request id `number` (0: any). Returns whether there was one."""
        watch = self._watches.get(connection)
        if watch is None or number not in (0, watch.number):
            return False
        del self._watches[connection]
        return True

    def publish(self, topic: str, name: str, data: Mapping[str, Any]) -> None:
        """Keeps an event and sends it to subscribers of its topic. Raises `BadFrame` when it cannot be encoded."""
        self.events.add(time.time(), topic, name, data)
        for connection in list(self._watches):
            self.pump(connection)

    def pump(self, connection: ControlConnection) -> None:
        """Sends the subscriber the events it has not seen, until its queue is full."""
        events, watch = self.events, self._watches.get(connection)
        if watch is None:
            return
        while watch.seen < events.newest and connection.has_room and connection in self._watches:
            missed = events.oldest - 1 - watch.seen
            if missed > 0:
                watch.seen += missed
                connection.send(lost(watch.seen, time.time(), missed))
                continue
            watch.seen += 1
            entry = events[watch.seen]
            if not watch.topics or entry.topic in watch.topics:
                connection.send_frame(entry.frame if connection.peer.role != VIEWER else _public(entry.frame))


def _public(frame: bytes) -> bytes:
    """Returns the frame for a viewer, which is encoded anew only if it quotes an application."""
    if MARK not in frame:
        return frame
    (event,) = Decoder(RESPONSES).feed(frame)
    return encode(public(event))
