"""Context and connection of a worker whose calls run in greenlets.

Makes no greenlet (`calls.py`) and turns no loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.select import poll

from srvd.worker.context import WorkerContext
from srvd.worker.gevent.calls import Calls, Seat
from srvd.worker.gevent.sender import HubSender
from srvd.worker.loop import NEVER
from srvd.worker.net.bodies.stream import BodyStream
from srvd.worker.wsgi.threaded import ThreadedConnection

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.http.h1.head import Request
    from srvd.log import Log
    from srvd.worker.gevent.loop import HubLoop
    from srvd.worker.net.responder import Body, CallConvention
    from srvd.worker.observe.recorder import Recorder

__all__ = ["GreenletConnection", "GreenletContext"]

_BREATH = 1.0
"""The most seconds for which new connections are left to other workers while all greenlets are taken."""


class GreenletContext(WorkerContext):
    loop: HubLoop

    def __init__(
        self,
        convention: CallConvention,
        settings: PoolSettings,
        loop: HubLoop,
        recorder: Recorder,
        log: Log,
        stamp: Callable[[], bytes],
    ) -> None:
        super().__init__(convention, settings, loop, recorder, log, stamp)
        self.running = Calls(loop, recorder, settings.greenlets, settings.request_timeout or NEVER)
        self.calls = _Queue(self.running)
        self.sender = HubSender(loop.hub.loop)

    def swamped(self, now: float, on_free: Callable[[float], None]) -> float:
        if not self.running.full:
            return 0.0
        self.running.on_free = on_free
        return _BREATH

    def make_poll(self) -> Any:
        return poll()

    def late_calls(self, since: float) -> int:
        return self.running.late(since)


class _GreenletStream(BodyStream):
    def _make_poll(self) -> Any:
        return poll()


class _Queue:
    """Where a `ThreadedConnection` puts its call."""

    def __init__(self, calls: Calls) -> None:
        self._waiting = calls.waiting

    def append(self, connection: GreenletConnection) -> None:
        self._waiting.append(connection.call)


class GreenletConnection(ThreadedConnection):
    """A connection whose requests are answered in greenlets. In the phase CALLING it belongs to its call."""

    __slots__ = ()

    _context: Any  # a GreenletContext

    def call(self, seat: Seat, now: float) -> Callable[[float], None]:
        self.work(seat, now)  # type: ignore[arg-type]  # a seat has what a call needs of a recorder
        return self.settle

    def _stream(self, request: Request) -> Body:
        return _GreenletStream(request, self._inbound, self._sock, self._context.times.body)
