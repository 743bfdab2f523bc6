"""The steps between one listener's socket and HTTP: PROXY protocol, TLS, and the choice of peers trusted about clients.

Loaded only for listeners that have such a step; all others give their connections straight to HTTP.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from srvd.errors import BadFrame
from srvd.http.h1.head import HeadReader
from srvd.http.h1.sink import Ends
from srvd.http.proxies.forwarded import ForwardedReader
from srvd.http.proxies.networks import Networks
from srvd.http.proxies.proxy_protocol import ProxyReader
from srvd.tls import material
from srvd.worker.context import WorkerContext
from srvd.worker.net.handshake import Handshake, Steps

if TYPE_CHECKING:
    from srvd.worker.connections import Connect, Guest
    from srvd.worker.net.tls import TlsListener, TlsTransport
    from srvd.worker.net.transport import Transport

__all__ = ["Front", "Reception", "make_front"]

_COMPLAINT_GAP = 60.0
"""Seconds between two log lines of one kind, which any client can cause."""


class Front(NamedTuple):
    """The settings of one listener's steps. Made once, in the zygote: workers share the TLS context with its session
    keys.
    """

    proxy_from: Networks | None  # None: no PROXY protocol
    trusted: Networks | None  # None: forwarding headers get no special treatment
    forwarded: str
    tls: TlsListener | None

    def reception(self, context: WorkerContext, connect: Connect) -> Reception:
        """Makes the `Reception` of one worker."""
        return Reception(self, context, connect)


def make_front(told: Mapping[str, Any], packed: object) -> Front:
    """Makes a `Front` of the result of `config.packing.pack_front`, and the packed material (None without TLS).

    Raises `BadFrame` for malformed settings, `ConfigInvalid` for certificates that this OpenSSL does not accept.
    """
    tls = None
    if packed is not None:
        # Imported here, because ssl costs 11 ms and 3 MB, which PROXY and trusted proxies do not need.
        from srvd.worker.net.tls import TlsListener

        tls = TlsListener(material.unpack(packed))
    try:
        proxy_from = Networks(told["proxy_from"]) if told["proxy_protocol"] else None
        trusted = Networks(told["trusted_proxies"]) if told["trusted_proxies"] else None
        return Front(proxy_from, trusted, str(told["forwarded"]), tls)
    except (KeyError, TypeError, ValueError) as exc:
        raise BadFrame(f"read a listener's settings: {exc!r}; the link is closed") from exc


class Reception:
    """Receives the accepted connections of one listener."""

    def __init__(self, front: Front, context: WorkerContext, connect: Connect) -> None:
        self._front = front
        self._context = context
        self._connect = connect
        self._complained: dict[str, tuple[float, int]] = {}  # kind → last time, and lines suppressed since
        limits, sink = context.heads.limits, context.heads.sink
        self._heads: dict[bool, HeadReader] = {}
        if front.trusted is not None:
            self._heads = {
                trusted: ForwardedReader(limits, sink, front.forwarded, front.trusted, trusted=trusted)
                for trusted in (True, False)
            }
        proxied = _proxied if front.proxy_from is not None else None
        secure = front.tls.wrap if front.tls is not None else None
        self._steps = Steps(proxied, secure, self._become, self._failed)

    def welcome(self, sock: socket.socket, ends: Ends, now: float) -> None:
        """Starts the steps of an accepted connection; `ends` are the socket's."""
        front = self._front
        if front.proxy_from is not None and ends.client not in front.proxy_from:
            sock.close()
            self._complain("PROXY header", f"{ends.client or 'unix'} may not write one", now)
        elif front.proxy_from is not None or front.tls is not None:
            Handshake(self._context, self._steps, sock, ends, now)
        else:
            self._context.loop.later(self._begin(sock, ends, now).greet)

    def _become(self, sock: socket.socket, encrypted: TlsTransport | None, ends: Ends, now: float) -> None:
        if encrypted is None or self._front.tls is None:
            self._begin(sock, ends, now).greet(now)
        else:
            self._begin(encrypted, self._front.tls.introduce(encrypted, ends), now).greet(now)

    def _begin(self, transport: Transport, ends: Ends, now: float) -> Guest:
        trusted = self._front.trusted
        heads = self._context.heads if trusted is None else self._heads[ends.client in trusted]
        return self._connect(transport, ends, now, heads)

    def _failed(self, kind: str, exc: Exception, ends: Ends, now: float) -> None:
        # ssl.SSLError has the first two attributes.
        reason = getattr(exc, "verify_message", "") or getattr(exc, "reason", "") or str(exc)
        self._complain(kind, f"{ends.client or 'unix'}: {reason}", now)

    def _complain(self, kind: str, text: str, now: float) -> None:
        last, kept_back = self._complained.get(kind, (-_COMPLAINT_GAP, 0))
        if now - last < _COMPLAINT_GAP:
            self._complained[kind] = (last, kept_back + 1)
            return
        self._complained[kind] = (now, 0)
        before = f", and {kept_back} before it" if kept_back else ""
        self._context.log.warning(f"a connection was refused for its {kind}{before}: {text}")


def _proxied(ends: Ends, reader: ProxyReader) -> Ends:
    """Returns the client's ends in place of the balancer's; the balancer's own if its header names no client."""
    told = reader.endpoints
    if told is None:
        return ends
    if not told.source:
        return ends._replace(client="", client_port="")
    return ends._replace(
        client=told.source,
        client_port=str(told.source_port),
        server=told.destination,
        server_port=str(told.destination_port),
    )
