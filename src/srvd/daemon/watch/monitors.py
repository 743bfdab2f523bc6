"""The monitors of a daemon: for overdue requests, for workers over their memory limit, for workers without progress.

Each monitor has its own timers; this class passes on what concerns all of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from srvd.core.events import Event
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.workers import Workers
from srvd.daemon.loop import Loop
from srvd.daemon.watch.liveness import LivenessMonitor
from srvd.daemon.watch.memory_limit import MemoryLimitMonitor
from srvd.daemon.watch.request_timeout import RequestTimeoutMonitor
from srvd.ids import GenerationId

__all__ = ["Monitors"]


class Monitors:
    """All monitors of one daemon."""

    def __init__(
        self,
        request_timeout: RequestTimeoutMonitor,
        state: SupervisorState,
        workers: Workers,
        listeners: Callable[[GenerationId], Sequence[socket.socket]],
        emit: Callable[[Event], None],
        mend: Callable[[], None],
    ) -> None:
        """`mend`: called when a listener had an event, perhaps because a process has shut it down."""
        self._request_timeout = request_timeout
        self._memory_limit = MemoryLimitMonitor(state, workers.rss, emit)
        self._liveness = LivenessMonitor(state, workers, listeners, emit, mend)

    def attach(self, loop: Loop) -> None:
        """Start all monitors."""
        self._request_timeout.attach(loop)
        self._liveness.attach(loop)
        self._memory_limit.attach(loop)

    def renew(self) -> None:
        """Follow the limits and listeners of the configuration in force now."""
        self._request_timeout.look()
        self._liveness.renew()
        self._memory_limit.renew()

    def close(self) -> None:
        """Stop watching the listeners, because the daemon ends."""
        self._liveness.close()
