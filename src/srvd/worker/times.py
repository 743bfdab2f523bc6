"""How long a connection may take for each of its steps.

Measures nothing: connections compare their deadlines with the loop's time.
"""

from __future__ import annotations

from srvd.config.settings import PoolSettings
from srvd.worker.loop import NEVER

__all__ = ["Times"]


class Times:
    """The most seconds for each step of a connection. A drain shortens some. A setting of 0 means no limit."""

    __slots__ = ("body", "first", "head", "idle", "linger", "send")

    def __init__(self, settings: PoolSettings) -> None:
        self.first = settings.header_timeout or NEVER  # until the first byte of the first request
        self.idle = settings.keepalive_timeout  # between two requests
        self.head = settings.header_timeout or NEVER
        self.body = settings.body_timeout or NEVER
        self.send = settings.send_timeout or NEVER
        self.linger = 2.0
