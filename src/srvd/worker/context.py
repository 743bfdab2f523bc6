"""The objects that all connections of one worker share: application, loop, recorder, time limits.

Has neither the behaviour of a connection nor decisions about commands, which read and set these fields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from threading import Lock
from typing import TYPE_CHECKING

from srvd.http.h1.date import Stamp
from srvd.http.h1.head import HeadReader, Request
from srvd.http.h1.limits import Limits
from srvd.http.h1.sink import Ends, Sink
from srvd.worker.connections import Connections
from srvd.worker.net.budget import Budget
from srvd.worker.net.sender import Sender
from srvd.worker.times import Times

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.app.loader import Application
    from srvd.worker.connections import Peer
    from srvd.worker.deadman import Lifeline
    from srvd.worker.loop import Loop
    from srvd.worker.net.responder import Body, Push, Responder
    from srvd.worker.net.transport import Transport
    from srvd.worker.observe.access_log import AccessLog
    from srvd.worker.observe.recorder import Recorder
    from srvd.worker.recycling import Recycling

__all__ = ["WorkerContext"]


class WorkerContext:
    """Made and owned by `worker/main.py`; the connections, the acceptor and the commands refer to it."""

    connection: Callable[[WorkerContext, Transport, Ends, float, HeadReader], Peer]
    """Makes a connection of an accepted socket. Arguments: context, socket, its ends, time, reader of heads."""
    responder: Callable[[WorkerContext, Request, Body, Push], Responder]
    """Makes the responder of a request. Arguments: context, request, body, function that sends beside the response."""

    def __init__(
        self, app: Application, settings: PoolSettings, loop: Loop, recorder: Recorder, log: Log, sink: Sink
    ) -> None:
        self.app = app
        self.streams = settings.stream_bodies
        self.health_status = settings.health_status
        self.loop = loop
        self.recorder = recorder
        self.log = log
        self.heads = HeadReader(_limits(settings), sink)
        self.connections = Connections(recorder)
        self.times = Times(settings)
        self.budget = Budget(settings.body_memory)
        self.most_kept = settings.max_buffered_response
        self.sender = Sender()
        self.writing = Lock()
        """Lock for the counts, in all responses, of threads that are in write()."""
        self.variables: Context = copy_context()
        """The context variables of the worker when it became ready; each request runs in a copy of its own."""
        self.closing = settings.keepalive_timeout == 0
        """Whether each response that begins now is the last of its connection."""
        self.access: AccessLog | None = None
        self.recycling: Recycling | None = None
        self.lifeline: Lifeline | None = None
        self._stamp = Stamp()
        self._dropped: set[str] = set()

    def swamped(self, now: float, on_free: Callable[[float], None]) -> float:
        """Returns how long, in seconds, to leave new connections to other workers because every thread is busy; 0.0 to
        accept now. Calls `on_free` as soon as a thread is free again, if that is earlier.
        """
        return 0.0

    def warn_of_dropped(self, label: str, names: Iterable[str]) -> None:
        """Logs a warning, once for each name, that a field of the application's response was dropped."""
        for name in names:
            if name not in self._dropped:
                self._dropped.add(name)
                self.log.warning(
                    f"{label}: the application's field {name} was dropped: it speaks of the connection, which is "
                    f"the server's; this worker drops it from now on without a word"
                )

    def late_calls(self, since: float) -> int:
        """Returns how many calls under way have had no output since then. 0 with one thread, which cannot ask during a
        call.
        """
        return 0

    def stamp(self) -> bytes:
        """Returns the Server and Date lines of a response that is made now."""
        stamp = self._stamp
        now = time.monotonic()
        if now >= stamp.until:
            stamp.renew(now, time.time())
        return stamp.text


def _limits(settings: PoolSettings) -> Limits:
    return Limits(
        head=settings.max_head,
        line=settings.max_target,
        field=settings.max_field,
        fields=settings.max_fields,
        body=settings.max_body,
        underscores=settings.underscore_headers == "drop",
    )
