"""A connection before its first request: the header of the PROXY protocol, then the handshake of TLS, in the loop.

Reads no byte of HTTP. After at most `header_timeout` a handshake becomes a `Connection`, or ends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from select import EPOLLIN, EPOLLOUT
from typing import TYPE_CHECKING

from srvd.http.h1.refusal import answer
from srvd.http.h1.sink import Ends
from srvd.http.proxies.proxy_protocol import LONGEST, ProxyInvalid, ProxyReader
from srvd.worker.context import WorkerContext
from srvd.worker.net.phase import Phase

if TYPE_CHECKING:
    from srvd.worker.net.tls import TlsTransport

__all__ = ["Handshake", "Steps"]


class Steps:
    """The steps before HTTP (None: left out), and the functions that take the connection over, or log its failure."""

    __slots__ = ("become", "complain", "proxied", "secure")

    def __init__(
        self,
        proxied: Callable[[Ends, ProxyReader], Ends] | None,
        secure: Callable[[socket.socket], TlsTransport] | None,
        become: Callable[[socket.socket, TlsTransport | None, Ends, float], None],
        complain: Callable[[str, Exception, Ends, float], None],
    ) -> None:
        self.proxied = proxied
        self.secure = secure
        self.become = become
        self.complain = complain


class Handshake:
    """A connection before HTTP. Among the worker's connections, counts as one without a request yet."""

    __slots__ = (
        "_context",
        "_encrypted",
        "_ends",
        "_fd",
        "_proxy",
        "_sock",
        "_steps",
        "deadline",
        "phase",
        "served",
    )

    def __init__(self, context: WorkerContext, steps: Steps, sock: socket.socket, ends: Ends, now: float) -> None:
        self._context = context
        self._steps = steps
        self._sock = sock
        self._fd = sock.fileno()
        self._ends = ends
        self._proxy = ProxyReader() if steps.proxied else None
        self._encrypted: TlsTransport | None = None
        self.phase = Phase.IDLE
        self.served = 0
        self.deadline = now + context.times.first
        context.connections.enter(self)
        context.loop.add(self._fd, EPOLLIN, self.on_ready)
        context.loop.watch(self)

    def __repr__(self) -> str:
        return f"<Handshake {self._fd} {'TLS' if self._encrypted else 'PROXY' if self._proxy else 'new'}>"

    def on_ready(self, mask: int, now: float) -> None:
        """Goes on with the present step: bytes arrived, or the socket takes more of the handshake."""
        try:
            self._go_on(now)
        except BlockingIOError:
            return
        except EOFError:
            self.close(now)
        except (OSError, ProxyInvalid) as exc:  # OSError: of TLS, too
            self._steps.complain("PROXY header" if self._proxy else "TLS handshake", exc, self._ends, now)
            if getattr(exc, "reason", "") == "HTTP_REQUEST":  # of ssl.SSLError: a client without TLS gets an answer
                with suppress(OSError):
                    self._sock.send(answer(400, self._context.stamp()))
            self.close(now)

    def expire(self, now: float) -> None:
        """Closes at the end of the time, without an answer, since there was no request."""
        self.close(now)

    def hurry(self, deadline: float) -> None:
        """Shortens the time to `deadline`."""
        if deadline < self.deadline:
            self.deadline = deadline
            self._context.loop.due_at(deadline)

    def close(self, now: float) -> None:
        """Closes the socket, and removes the handshake from the worker."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self._let_go()
        (self._encrypted or self._sock).close()
        self._context.connections.leave(self, now)

    def _go_on(self, now: float) -> None:
        if self._proxy is not None:
            self._read_proxy(self._proxy)
        if self._proxy is None and self._steps.secure is not None:
            if self._encrypted is None:
                self._encrypted = self._steps.secure(self._sock)
            if not self._encrypted.handshake():
                self._context.loop.want(self._fd, EPOLLIN | EPOLLOUT if self._encrypted.blocked else EPOLLIN)
                return
        if self._proxy is None:
            self.phase = Phase.CLOSED
            self._let_go()
            self._steps.become(self._sock, self._encrypted, self._ends, now)
            # Only now: a draining worker must not see zero connections in between, and end.
            self._context.connections.leave(self, now)

    def _read_proxy(self, reader: ProxyReader) -> None:
        # Peek first: bytes behind the header belong to TLS or HTTP.
        data = self._sock.recv(LONGEST, socket.MSG_PEEK)
        if not data:
            raise EOFError
        self._sock.recv(reader.take(data))
        if reader.complete:
            assert self._steps.proxied is not None
            self._ends = self._steps.proxied(self._ends, reader)
            self._proxy = None

    def _let_go(self) -> None:
        self._context.loop.remove(self._fd)
        self._context.loop.forget(self)
