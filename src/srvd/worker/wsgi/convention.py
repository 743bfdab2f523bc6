"""WSGI as the calling convention of a worker: the sink of its requests, their responders, and requests of its own.

Knows no connection. The connection calls the responders; `ask` calls one without a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from srvd.worker.net.responder import Body, Push, Reply, Responder
from srvd.worker.wsgi.application import WsgiApplication, with_before_request
from srvd.worker.wsgi.environ import EnvironSink
from srvd.worker.wsgi.exchange import Exchange

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.http.h1.head import Request
    from srvd.http.h1.sink import Sink
    from srvd.log import Log
    from srvd.worker.app.hooks import Hook
    from srvd.worker.app.loader import Application

__all__ = ["Wsgi"]

# Bytes read of a reply: a health page is short, and the rest of an endless one does not matter.
_LONGEST = 1 << 20


class Wsgi:
    """A `Convention`. Its responders are made by a partial of their class: a method would cost each request more."""

    def __init__(
        self,
        app: Application,
        settings: PoolSettings,
        worker: str,
        before_request: Hook | None,
        log: Log,
        stamp: Callable[[], bytes],
    ) -> None:
        self.sink: Sink = EnvironSink(worker, multithread=settings.threads > 1 or settings.engine == "gevent")
        self.streams = settings.stream_bodies
        self.variables = copy_context()
        self._application = WsgiApplication(with_before_request(app, before_request, log), log, stamp)
        self.responder: Callable[[Request, Body, Push], Responder] = partial(Exchange, self._application)

    def ask(self, request: Request, replied: Callable[[Reply], None]) -> None:
        """Calls the application for a request without a body, and calls `replied` with the reply before it returns."""
        exchange = Exchange(self._application, request, None, _unread)
        self.variables.copy().run(_finish, exchange)
        replied(Reply(exchange.code, exchange.status, exchange.fields, exchange.failure))


def _finish(exchange: Exchange) -> None:
    """Makes the whole response, or as much as is wanted of it."""
    given = len(exchange.start())
    while not exchange.ended:
        if exchange.span is not None:
            os.close(exchange.span.fd)
            exchange.span = None
        given += len(exchange.more())
        if given > _LONGEST:
            exchange.abandon()


def _unread(exchange: Responder, data: bytes) -> None:
    """Takes the bytes that the application sends by write(), and drops them."""
