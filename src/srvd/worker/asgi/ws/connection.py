"""A connection that may become a WebSocket: after the handshake its bytes are frames, and its times those of a `Pulse`.

Knows no frame: `cycle.py` does. Before the handshake, and for all other requests, it is an `HttpConnection`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from select import EPOLLERR, EPOLLHUP, EPOLLIN
from typing import TYPE_CHECKING

from srvd.http.ws.handshake import asks_for_websocket, judge
from srvd.worker.asgi.connection import HttpConnection
from srvd.worker.asgi.scope import UPGRADE
from srvd.worker.asgi.ws.cycle import WebSocketCycle
from srvd.worker.asgi.ws.pulse import Due, Pulse
from srvd.worker.net.errors import ReaderGone
from srvd.worker.net.transport import READ

if TYPE_CHECKING:
    from srvd.http.h1.head import HeadReader, Request
    from srvd.http.h1.sink import Ends
    from srvd.worker.asgi.context import AsgiContext
    from srvd.worker.asgi.http import HttpCycle
    from srvd.worker.net.transport import Transport

__all__ = ["AsgiConnection"]


class AsgiConnection(HttpConnection):
    """`_websocket` is the request under way, once its handshake is accepted."""

    __slots__ = ("_pulse", "_websocket")

    def __init__(self, context: AsgiContext, sock: Transport, ends: Ends, now: float, heads: HeadReader) -> None:
        super().__init__(context, sock, ends, now, heads)
        self._websocket: WebSocketCycle | None = None
        self._pulse = Pulse(now, 0.0, 0.0)

    def expire(self, now: float) -> None:
        cycle = self._websocket
        if cycle is None or self._delivery.queue.items:
            super().expire(now)
        else:
            self._beat(cycle, now)

    def close(self, now: float) -> None:
        self._let_go()
        super().close(now)

    def opened(self, cycle: WebSocketCycle) -> None:
        now = time.monotonic()
        self._websocket = cycle
        self._pulse = Pulse(now, self._context.websocket.ping, self._context.websocket.ping_timeout)
        self._context.cycles.switch(cycle)
        early = bytes(self._inbound.rest)  # a client need not wait for the answer to its handshake
        self._inbound.rest.clear()
        self._want(self._mask | EPOLLIN)
        self._set_deadline(self._pulse.due)
        if early:
            cycle.hear(early)

    def closing(self, cycle: WebSocketCycle) -> None:
        self._pulse.close_soon(time.monotonic())
        self._hasten(self._pulse.due)

    def want_body(self, cycle: HttpCycle) -> None:
        if cycle is self._websocket:
            self._want(self._mask | EPOLLIN)
        else:
            super().want_body(cycle)

    def shut(self, cycle: WebSocketCycle) -> None:
        self._let_go()
        self.over(cycle)

    def _let_go(self) -> None:
        cycle, self._websocket = self._websocket, None
        if cycle is not None:
            self._context.cycles.websockets.pop(cycle, None)

    def _make_cycle(self, request: Request, now: float) -> HttpCycle:
        scope = request.scope
        if not scope.pop(UPGRADE, False) or not asks_for_websocket(request, scope["headers"]):
            return super()._make_cycle(request, now)
        terms = self._context.websocket
        terms.check_origin(scope["headers"])
        handshake = judge(request, scope["headers"], terms.deflate)
        return WebSocketCycle(self._context.convention.application, request, self, now, handshake, terms.limits)

    def _due(self) -> float:
        if self._websocket is None or self._delivery.queue.items:
            return super()._due()
        return self._pulse.due

    def _hear(self, mask: int, now: float) -> None:
        cycle = self._websocket
        if cycle is None:
            super()._hear(mask, now)
            return
        try:
            data = self._sock.recv(READ) if self._mask & EPOLLIN else b""
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._pulse.heard = now
            with suppress(ReaderGone):
                self._take_frames(cycle, data)
        elif self._mask & EPOLLIN or mask & (EPOLLERR | EPOLLHUP):
            self.close(now)

    def _take_frames(self, cycle: WebSocketCycle, data: bytes) -> None:
        cycle.hear(data)
        if cycle is self._websocket:
            if not cycle.reads_on:
                self._want(self._mask & ~EPOLLIN)
            if not self._delivery.queue.items:
                cycle.pongs()

    def _flush(self, now: float) -> None:
        super()._flush(now)
        if self._websocket is not None and not self._delivery.queue.items:
            with suppress(ReaderGone):
                self._websocket.pongs()

    def _beat(self, cycle: WebSocketCycle, now: float) -> None:
        """Pings a client that is silent, and ends the connection if it stays so."""
        pulse = self._pulse
        what = pulse.look(now)
        if what is Due.CLOSE:
            cycle.give_up()
            return
        if what is Due.CUT and self._mask & EPOLLIN:
            self.reset(now)
            return
        if what is Due.CUT:
            pulse.heard = now  # it may have answered: nothing is read while the application takes no messages
        elif what is Due.PING:
            with suppress(ReaderGone):
                cycle.ping()
        if cycle is self._websocket:
            self._set_deadline(pulse.due)
