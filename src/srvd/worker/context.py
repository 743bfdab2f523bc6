"""The objects that all connections of one worker share: calling convention, loop, recorder, time limits.

Has neither the behaviour of a connection nor decisions about commands, which read and set these fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from select import poll
from typing import TYPE_CHECKING, Any, NamedTuple

from srvd.http.h1.head import HeadReader
from srvd.http.h1.limits import Limits
from srvd.worker.connections import Connect, Connections
from srvd.worker.net.bodies.budget import Budget
from srvd.worker.net.sender import Sender
from srvd.worker.times import Times

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.loop import Loop
    from srvd.worker.net.responder import CallConvention
    from srvd.worker.observe.recorder import Recorder

__all__ = ["Serving", "WorkerContext"]


class WorkerContext:
    """Made for a convention (`wsgi/serving.py`); the connections, the acceptor and the commands refer to it."""

    def __init__(
        self,
        convention: CallConvention,
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
        self.last_seconds = 0.0
        """How much of a drain's time is needed after the last request; at most a quarter is taken."""

    def swamped(self, now: float, on_free: Callable[[float], None]) -> float:
        """Returns how long, in seconds, to leave new connections to other workers because every thread is busy; 0.0 to
        accept now. Calls `on_free` as soon as a thread is free again, if that is earlier.
        """
        return 0.0

    def leave(self, now: float, until: float) -> None:
        """Called when the worker begins to drain, and has time until `until`. Does nothing with threads: they end what
        they have begun.
        """

    def make_poll(self) -> Any:
        """Returns what a call waits with for its client: a `select.poll`, or what does the same in a greenlet."""
        return poll()

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


def _no_start() -> None:
    """Does nothing: not every application has a start of its own."""


class Serving(NamedTuple):
    """What a convention serves with."""

    context: WorkerContext
    connect: Connect
    run: Callable[[], None]
    """Serves until the loop is stopped."""
    kinds: Sequence[type]
    """The classes whose methods lead back to srvd from the application's code."""
    start: Callable[[], None] = _no_start
    """Starts the application, before READY. Raises `LoadFailed`."""
