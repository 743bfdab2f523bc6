"""A connection before its first request: the header of the PROXY protocol, then the handshake of TLS, in the loop.

Reads not a byte of HTTP. It has `header_timeout` for all of it; then it becomes a `Connection`, or ends.
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
    from srvd.worker.net.tls import Encrypted

__all__ = ["Handshake", "Steps"]


class Steps:
    """What an arrival is asked to go through, and who takes it over; either of the first two may be missing."""

    __slots__ = ("become", "complain", "proxied", "secure")

    def __init__(
        self,
        proxied: Callable[[Ends, ProxyReader], Ends] | None,
        secure: Callable[[socket.socket], Encrypted] | None,
        become: Callable[[socket.socket, Encrypted | None, Ends, float], None],
        complain: Callable[[str, Exception, Ends, float], None],
    ) -> None:
        self.proxied = proxied
        self.secure = secure
        self.become = become
        self.complain = complain


class Handshake:
    """Among the worker's connections it counts as one that has sent nothing yet."""

    __slots__ = (
        "_encrypted",
        "_ends",
        "_fd",
        "_proxy",
        "_service",
        "_sock",
        "_steps",
        "deadline",
        "phase",
        "served",
    )

    def __init__(self, service: WorkerContext, steps: Steps, sock: socket.socket, ends: Ends, now: float) -> None:
        self._service = service
        self._steps = steps
        self._sock = sock
        self._fd = sock.fileno()
        self._ends = ends
        self._proxy = ProxyReader() if steps.proxied else None
        self._encrypted: Encrypted | None = None
        self.phase = Phase.IDLE
        self.served = 0
        self.deadline = now + service.times.first
        service.crowd.enter(self)
        service.loop.add(self._fd, EPOLLIN, self.on_ready)
        service.loop.watch(self)

    def __repr__(self) -> str:
        return f"<Handshake {self._fd} {'TLS' if self._encrypted else 'PROXY' if self._proxy else 'new'}>"

    def on_ready(self, mask: int, now: float) -> None:
        """Something came, or the socket takes more of a handshake."""
        try:
            self._go_on(now)
        except BlockingIOError:
            return
        except EOFError:
            self.close(now)
        except (OSError, ProxyInvalid) as exc:  # OSError: of TLS, too
            self._steps.complain("PROXY header" if self._proxy else "TLS handshake", exc, self._ends, now)
            if getattr(exc, "reason", "") == "HTTP_REQUEST":  # of ssl.SSLError: it speaks HTTP, and can be told
                with suppress(OSError):
                    self._sock.send(answer(400, self._service.stamp()))
            self.close(now)

    def expire(self, now: float) -> None:
        """The time is over; nothing was asked, so nothing is answered."""
        self.close(now)

    def hurry(self, deadline: float) -> None:
        """Be done by then at the latest."""
        if deadline < self.deadline:
            self.deadline = deadline
            self._service.loop.due_at(deadline)

    def close(self, now: float) -> None:
        """Forget it."""
        if self.phase is Phase.CLOSED:
            return
        self.phase = Phase.CLOSED
        self._let_go()
        (self._encrypted or self._sock).close()
        self._service.crowd.leave(self, now)

    def _go_on(self, now: float) -> None:
        if self._proxy is not None:
            self._read_proxy(self._proxy)
        if self._proxy is None and self._steps.secure is not None:
            if self._encrypted is None:
                self._encrypted = self._steps.secure(self._sock)
            if not self._encrypted.handshake():
                self._service.loop.want(self._fd, EPOLLIN | EPOLLOUT if self._encrypted.blocked else EPOLLIN)
                return
        if self._proxy is None:
            self.phase = Phase.CLOSED
            self._let_go()
            self._steps.become(self._sock, self._encrypted, self._ends, now)
            # Only now: the worker must not find itself empty in between.
            self._service.crowd.leave(self, now)

    def _read_proxy(self, reader: ProxyReader) -> None:
        # Looked at before it is taken: what is beyond the header is not ours.
        data = self._sock.recv(LONGEST, socket.MSG_PEEK)
        if not data:
            raise EOFError
        self._sock.recv(reader.take(data))
        if reader.complete:
            assert self._steps.proxied is not None
            self._ends = self._steps.proxied(self._ends, reader)
            self._proxy = None

    def _let_go(self) -> None:
        self._service.loop.remove(self._fd)
        self._service.loop.forget(self)
