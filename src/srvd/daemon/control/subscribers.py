"""The watchers of events: each has a place in the ring, and takes from it as fast as it reads.

There is no queue for a watcher: one that is too slow is overtaken by the ring, and told how much it has lost.
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
    __slots__ = ("_watches", "ring")

    def __init__(self) -> None:
        self.ring = EventLog()
        self._watches: dict[ControlConnection, Watch] = {}

    def __contains__(self, link: ControlConnection) -> bool:
        return link in self._watches

    def begin(self, link: ControlConnection, number: int, args: Mapping[str, Any]) -> dict[str, Any]:
        """Let the link watch; the result of its request. `pump` sends what it has missed. Raises `Conflict`."""
        if link in self._watches:
            raise Conflict("watch: this connection watches already", hint="cancel that request first, or connect anew")
        ring, since = self.ring, args["since"]
        topics = frozenset(args["topics"])
        # A number from before a restart of the daemon is in this ring's future: then everything is news.
        seen = ring.newest if since < 0 else since if since <= ring.newest else 0
        self._watches[link] = Watch(number, topics, seen)
        return {"oldest": ring.oldest, "newest": ring.newest, "last": ring.last_of(topics)}

    def end(self, link: ControlConnection, number: int = 0) -> bool:
        """Forget the link's watch (if it is the request `number`); whether there was one."""
        watch = self._watches.get(link)
        if watch is None or number not in (0, watch.number):
            return False
        del self._watches[link]
        return True

    def publish(self, topic: str, data: Mapping[str, Any]) -> None:
        """Keep an event and send it to who watches. Raises `BadFrame` when it cannot be spelled."""
        self.ring.add(time.time(), topic, data)
        for link in list(self._watches):
            self.pump(link)

    def pump(self, link: ControlConnection) -> None:
        """Send the watcher what it has not seen, as far as it has room."""
        ring, watch = self.ring, self._watches.get(link)
        if watch is None:
            return
        while watch.seen < ring.newest and link.has_room and link in self._watches:
            missed = ring.oldest - 1 - watch.seen
            if missed > 0:
                watch.seen += missed
                link.send(lost(watch.seen, time.time(), missed))
                continue
            watch.seen += 1
            entry = ring[watch.seen]
            if not watch.topics or entry.topic in watch.topics:
                link.send_frame(entry.frame if link.peer.role != VIEWER else _public(entry.frame))


def _public(frame: bytes) -> bytes:
    """The same event as a viewer is told it: it is spelled anew only if it quotes an application."""
    if MARK not in frame:
        return frame
    (event,) = Decoder(RESPONSES).feed(frame)
    return encode(public(event))
