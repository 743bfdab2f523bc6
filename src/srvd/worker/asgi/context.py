"""What all connections of a worker of ASGI share, beside what those of every worker do.

Has no connection's behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from srvd.worker.asgi.cycles import Cycles
from srvd.worker.asgi.ws.terms import Terms
from srvd.worker.context import WorkerContext
from srvd.worker.loop import NEVER

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.asgi.convention import Asgi
    from srvd.worker.asgi.loop import AsyncLoop
    from srvd.worker.net.responder import CallConvention
    from srvd.worker.observe.recorder import Recorder

__all__ = ["AsgiContext"]


class AsgiContext(WorkerContext):
    """The context of a worker whose loop is turned by asyncio."""

    convention: Asgi  # type: ignore[assignment]  # its connections make no responder
    loop: AsyncLoop

    def __init__(
        self,
        convention: Asgi,
        settings: PoolSettings,
        loop: AsyncLoop,
        recorder: Recorder,
        log: Log,
        stamp: Callable[[], bytes],
    ) -> None:
        super().__init__(cast("CallConvention", convention), settings, loop, recorder, log, stamp)
        self.request_timeout = settings.request_timeout or NEVER
        self.max_in_flight = settings.max_in_flight
        self.cancels = settings.cancel_on_disconnect
        """Whether tasks are cancelled whose clients have left."""
        self.cycles = Cycles(loop, recorder)
        self.websocket = Terms.of(settings)
        self.last_seconds = 2.0  # for tasks that are cancelled, and for the end of the lifespan

    def leave(self, now: float, until: float) -> None:
        self.cycles.leaving.begin(now, until)

    def late_calls(self, since: float) -> int:
        return self.cycles.late(since)
