"""Makes what serves an application by the convention of ASGI: one thread, and a loop that asyncio turns.

Accepts no connection; the order of a worker's life is in `life.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from srvd.worker.asgi.application import AsgiApp, AsgiApplication
from srvd.worker.asgi.context import AsgiContext
from srvd.worker.asgi.convention import Asgi
from srvd.worker.asgi.life import Life
from srvd.worker.asgi.loop import AsyncLoop
from srvd.worker.asgi.scope import LOG_NAMES
from srvd.worker.asgi.ws.connection import AsgiConnection
from srvd.worker.asgi.ws.cycle import WebSocketCycle
from srvd.worker.context import Serving
from srvd.worker.stamp import ClockStamp

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.boot import Preloaded
    from srvd.worker.observe.recorder import Recorder

__all__ = ["LOG_NAMES", "make_loop", "prepare"]


def make_loop() -> AsyncLoop:
    return AsyncLoop()


def prepare(
    loaded: Preloaded, settings: PoolSettings, worker: str, loop: AsyncLoop, recorders: Sequence[Recorder], log: Log
) -> Serving:
    stamp = ClockStamp().now
    application = AsgiApplication(cast(AsgiApp, loaded.app), loop.asyncio, loaded.hooks.before_request, log, stamp)
    context = AsgiContext(Asgi(application, worker, settings.root_path), settings, loop, recorders[0], log, stamp)
    life = Life(context, application, settings.lifespan)
    kinds = (WebSocketCycle, AsgiConnection, AsyncLoop)  # and all that they inherit from
    return Serving(context, partial(AsgiConnection, context), life.run, kinds, life.start)
