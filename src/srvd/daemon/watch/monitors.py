"""The monitors of a daemon: for overdue requests, for workers over their memory limit, for workers without progress.

Each monitor has its own timers; this class passes on what concerns all of them.
"""

from __future__ import annotations

from srvd.daemon.loop import Loop
from srvd.daemon.watch.liveness import LivenessMonitor
from srvd.daemon.watch.memory_limit import MemoryLimitMonitor
from srvd.daemon.watch.request_timeout import RequestTimeoutMonitor
from srvd.record import Record

__all__ = ["Monitors"]


class Monitors(Record):
    """All monitors of one daemon."""

    request_timeout: RequestTimeoutMonitor
    memory_limit: MemoryLimitMonitor
    liveness: LivenessMonitor

    def attach(self, loop: Loop) -> None:
        """Start all monitors."""
        self.request_timeout.attach(loop)
        self.liveness.attach(loop)
        self.memory_limit.attach(loop)

    def renew(self) -> None:
        """Follow the limits and listeners of the configuration in force now."""
        self.request_timeout.look()
        self.liveness.renew()
        self.memory_limit.renew()

    def close(self) -> None:
        """Stop watching the listeners, because the daemon ends."""
        self.liveness.close()
