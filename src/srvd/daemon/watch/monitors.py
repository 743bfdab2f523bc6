"""The monitors of a daemon together: requests that are overdue, workers that are too large, workers that do not get on.

Each decides for itself when to look; this tells them what concerns all.
"""

from __future__ import annotations

from srvd.daemon.loop import Loop
from srvd.daemon.watch.liveness import LivenessMonitor
from srvd.daemon.watch.memory_limit import MemoryLimitMonitor
from srvd.daemon.watch.request_timeout import RequestTimeoutMonitor
from srvd.record import Record

__all__ = ["Monitors"]


class Monitors(Record):
    """Of one daemon."""

    request_timeout: RequestTimeoutMonitor
    memory_limit: MemoryLimitMonitor
    liveness: LivenessMonitor

    def attach(self, loop: Loop) -> None:
        """From here on they look."""
        self.request_timeout.attach(loop)
        self.liveness.attach(loop)
        self.memory_limit.attach(loop)

    def renew(self) -> None:
        """Another configuration is in force: its limits, its listeners."""
        self.request_timeout.look()
        self.liveness.renew()
        self.memory_limit.renew()

    def close(self) -> None:
        """The daemon ends: no client wakes it any more."""
        self.liveness.close()
