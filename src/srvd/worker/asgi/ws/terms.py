"""The terms on which a pool speaks with the clients of its WebSockets: compression, limits and pings, of its settings.

Does nothing with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from srvd.http.h1.refusal import Refusal
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
    origins: frozenset[bytes]
    """Origins whose pages may connect; empty: all."""

    @classmethod
    def of(cls, settings: PoolSettings) -> Terms:
        return cls(
            Deflate() if settings.websocket_deflate else None,
            Limits(message=settings.websocket_max_message),
            settings.websocket_ping or NEVER,
            settings.websocket_ping_timeout,
            frozenset(origin.lower().encode() for origin in settings.websocket_origins),
        )

    def check_origin(self, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Raises `Refusal` for a handshake of a foreign page (RFC 6455 section 10.2). Only browsers name an origin."""
        if self.origins and any(name == b"origin" and value.lower() not in self.origins for name, value in fields):
            raise Refusal(403, "pages of this origin may not open WebSockets (websocket_origins)")
