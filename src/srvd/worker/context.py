"""The objects that all connections of one worker share: calling convention, loop, recorder, time limits.

Has neither the behaviour of a connection nor decisions about commands, which read and set these fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from srvd.http.h1.head import HeadReader
from srvd.http.h1.limits import Limits
from srvd.worker.connections import Connections
from srvd.worker.net.bodies.budget import Budget
from srvd.worker.net.sender import Sender
from srvd.worker.times import Times

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.loop import Loop
    from srvd.worker.net.responder import Convention
    from srvd.worker.observe.recorder import Recorder

__all__ = ["WorkerContext"]


class WorkerContext:
    """Made for a convention (`wsgi/serving.py`); the connections, the acceptor and the commands refer to it."""

    def __init__(
        self,
        convention: Convention,
        settings: PoolSettings,
        loop: Loop,
        recorder: Recorder,
        log: Log,
        stamp: Callable[[], bytes],
    ) -> None:
        self.convention = convention
        self.loop = loop
        self.recorder = recorder
        self.log = log
        self.heads = HeadReader(_limits(settings), convention.sink)
        self.connections = Connections(recorder)
        self.times = Times(settings)
        self.budget = Budget(settings.body_memory, settings.max_buffered_response)
        self.sender = Sender()
        self.stamp = stamp
        """Returns the Server and Date lines of a response that is made now."""
        self.closing = settings.keepalive_timeout == 0
        """Whether each response that begins now is the last of its connection."""

    def swamped(self, now: float, on_free: Callable[[float], None]) -> float:
        """Returns how long, in seconds, to leave new connections to other workers because every thread is busy; 0.0 to
        accept now. Calls `on_free` as soon as a thread is free again, if that is earlier.
        """
        return 0.0

    def late_calls(self, since: float) -> int:
        """Returns how many calls under way have had no output since then. 0 with one thread, which cannot ask during a
        call.
        """
        return 0


def _limits(settings: PoolSettings) -> Limits:
    return Limits(
        head=settings.max_head,
        line=settings.max_target,
        field=settings.max_field,
        fields=settings.max_fields,
        body=settings.max_body,
        underscores=settings.underscore_headers == "drop",
    )
