"""What all connections of one worker share: the application, the settings, the loop, the meter.

No behaviour of a connection, and no decision about orders: those read and set these fields.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from srvd.http.clock import Stamp
from srvd.http.head import Environ, HeadReader
from srvd.http.limits import Limits

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.connection import Connection
    from srvd.worker.loop import Loop
    from srvd.worker.meter import Meter

__all__ = ["Application", "Service"]

_LINGER_SECONDS = 2.0

Application = Callable[[Environ, Any], Iterable[bytes]]


class Service:
    """Owned by `base.serve`; the connections, the gate and the orders hold it."""

    def __init__(self, app: Application, settings: PoolSettings, loop: Loop, meter: Meter, log: Log) -> None:
        self.app = app
        self.settings = settings
        self.loop = loop
        self.meter = meter
        self.log = log
        self.limits = Limits(body=settings.max_body)
        self.heads = HeadReader(self.limits)
        self._stamp = Stamp()
        self.connections: set[Connection] = set()
        self.lingering: set[Connection] = set()
        """Those of the connections that are answered and only wait for their client to close."""
        self.closing = False
        """Responses that begin now are the last ones of their connections."""
        self.linger_seconds = _LINGER_SECONDS
        self.idle_seconds = settings.keepalive_timeout
        self.first_seconds = settings.header_timeout
        self.on_left: Callable[[float], None] = _nobody_waits
        """Called when a connection has gone."""

    def enter(self, connection: Connection) -> None:
        """One connection more."""
        self.connections.add(connection)
        self.meter.connections(len(self.connections))

    def linger(self, connection: Connection, now: float) -> None:
        """It takes no room any more, only a descriptor."""
        self.lingering.add(connection)
        self.on_left(now)

    @property
    def working(self) -> int:
        """How many connections take room."""
        return len(self.connections) - len(self.lingering)

    def leave(self, connection: Connection, now: float) -> None:
        """One connection less."""
        self.connections.discard(connection)
        self.lingering.discard(connection)
        self.meter.connections(len(self.connections))
        self.on_left(now)

    def stamp(self) -> str:
        """The Server and Date lines of a response that is made now."""
        stamp = self._stamp
        now = time.monotonic()
        if now >= stamp.until:
            stamp.renew(now, time.time())
        return stamp.text


def _nobody_waits(now: float) -> None:
    """Before the orders are in place."""
