"""Makes what serves an application of WSGI in greenlets.

Accepts no connection and turns no loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import gevent

from srvd.worker.context import Serving
from srvd.worker.gevent.calls import Calls, Seat, Work
from srvd.worker.gevent.connection import GreenletConnection, GreenletContext
from srvd.worker.gevent.loop import HubLoop
from srvd.worker.stamp import ClockStamp
from srvd.worker.wsgi.convention import Wsgi
from srvd.worker.wsgi.exchange import Exchange

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.http.h1.head import Request
    from srvd.log import Log
    from srvd.worker.app.loader import Application
    from srvd.worker.boot import Preloaded
    from srvd.worker.net.responder import Reply
    from srvd.worker.observe.recorder import Recorder

__all__ = ["make_loop", "prepare", "renew"]


def renew() -> None:
    """Makes a forked worker independent of the hub that its zygote may have made. Call it first in the worker."""
    gevent.reinit()


def make_loop() -> HubLoop:
    return HubLoop()


def prepare(
    loaded: Preloaded, settings: PoolSettings, worker: str, loop: HubLoop, recorders: Sequence[Recorder], log: Log
) -> Serving:
    stamp = ClockStamp().now
    app = cast("Application", loaded.app)
    convention = _GreenletWsgi(app, settings, worker, loaded.hooks.before_request, log, stamp)
    context = GreenletContext(convention, settings, loop, recorders[0], log, stamp)
    convention.calls = context.running
    kinds = (Exchange, GreenletConnection, HubLoop, Seat)
    return Serving(context, partial(GreenletConnection, context), loop.run, kinds)


class _GreenletWsgi(Wsgi):
    """WSGI whose own requests wait for a greenlet, too."""

    calls: Calls

    def ask(self, request: Request, replied: Callable[[Reply], None]) -> None:
        """Calls the application for a request without a body in a greenlet; calls `replied` later."""
        work: Work = partial(self._ask, request, replied)
        self.calls.waiting.append(work)
        self.calls.loop.later(_nothing)

    def _ask(
        self, request: Request, replied: Callable[[Reply], None], _seat: Seat, _now: float
    ) -> Callable[[float], None]:
        replies: list[Reply] = []
        super().ask(request, replies.append)
        return lambda now: replied(replies[0])


def _nothing(now: float) -> None:
    """Does nothing: a turn follows, and then the call."""
