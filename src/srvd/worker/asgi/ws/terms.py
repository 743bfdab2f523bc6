"""The terms on which a pool speaks with the clients of its WebSockets: compression, limits and pings, of its settings.

Does nothing with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srvd.http.ws.extensions import Deflate
from srvd.http.ws.limits import Limits
from srvd.worker.loop import NEVER

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings

__all__ = ["Terms"]


class Terms(NamedTuple):
    """`ping` is NEVER for WebSockets that are not pinged; times in seconds."""

    deflate: Deflate | None
    limits: Limits
    ping: float
    ping_timeout: float

    @classmethod
    def of(cls, settings: PoolSettings) -> Terms:
        return cls(
            Deflate() if settings.websocket_deflate else None,
            Limits(message=settings.websocket_max_message),
            settings.websocket_ping or NEVER,
            settings.websocket_ping_timeout,
        )
