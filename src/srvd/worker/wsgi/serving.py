"""Makes what serves an application by the convention of WSGI: with one thread, or with several.

Accepts no connection and turns no loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from srvd.worker.app.loader import Application
from srvd.worker.context import Serving, WorkerContext
from srvd.worker.loop import Loop
from srvd.worker.net.connection import Connection
from srvd.worker.stamp import ClockStamp
from srvd.worker.wsgi.convention import Wsgi
from srvd.worker.wsgi.environ import LOG_NAMES
from srvd.worker.wsgi.exchange import Exchange
from srvd.worker.wsgi.scheduler import Threads
from srvd.worker.wsgi.threaded import ThreadedConnection, ThreadedContext, ThreadedLoop

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.log import Log
    from srvd.worker.boot import Preloaded
    from srvd.worker.observe.recorder import Recorder

__all__ = ["LOG_NAMES", "make_loop", "prepare"]


def make_loop(threads: int) -> Loop:
    return ThreadedLoop() if threads > 1 else Loop()


def prepare(
    loaded: Preloaded, settings: PoolSettings, worker: str, loop: Loop, recorders: Sequence[Recorder], log: Log
) -> Serving:
    """`loop` of `make_loop`; `recorders`: one for the loop, and with several threads one for each."""
    stamp = ClockStamp().now
    convention = Wsgi(cast(Application, loaded.app), settings, worker, loaded.hooks.before_request, log, stamp)
    first, *others = recorders
    if isinstance(loop, ThreadedLoop):
        shared = ThreadedContext(convention, settings, loop, first, log, stamp, others)
        kinds = (Exchange, ThreadedConnection, ThreadedLoop)
        return Serving(shared, partial(ThreadedConnection, shared), Threads(shared, worker).run, kinds)
    context = WorkerContext(convention, settings, loop, first, log, stamp)
    return Serving(context, partial(Connection, context), loop.run, (Exchange, Connection, Loop))
