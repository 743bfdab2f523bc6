"""The health probe: one GET, called on the application in the worker itself, without a socket.

Sets no limit of time and asks once: the daemon says when to ask again, and kills a worker that does not come back.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Ends
from srvd.wire.links import Probed, clip
from srvd.worker.app.hooks import PROBE
from srvd.worker.context import WorkerContext
from srvd.worker.net.responder import Responder
from srvd.worker.wsgi.exchange import Exchange

__all__ = ["is_among", "probe"]

# A health page is short; of an endless one this much is enough.
_LONGEST = 1 << 20

_URL = re.compile(r"(?:(https?)://([^/?]*))?(.*)", re.DOTALL)
_LOCATION = re.compile(r"^Location: *([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def probe(service: WorkerContext, target: str, statuses: Sequence[str] = ()) -> Probed:
    """Whether the application answers GET `target` with one of these statuses; none: those that `health_status` names.

    `target` is a URL, whose scheme and host the application sees as those of a client's request (`config/health.py`
    makes it), or only a path.
    """
    scheme, host, path = (found or "" for found in _URL.fullmatch(target).groups())  # type: ignore[union-attr]  # it takes any text
    scheme, host = scheme or "http", host or "localhost"
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: srvd-probe\r\nConnection: close\r\n\r\n"
    ends = Ends("127.0.0.1", "0", server_port="443" if scheme == "https" else "80", scheme=scheme)
    template = service.heads.sink.connection(ends) | {PROBE: True}
    try:
        request = service.heads.read(head.encode("utf-8"), template)
    except Refusal as refusal:
        return Probed(False, f"GET {path}: this is no request: {refusal.why}")
    exchange = Exchange(service, request, None, _unread)
    service.context.copy().run(_ask, exchange)
    if exchange.failure:
        return Probed(False, clip(f"GET {path}: the application failed\n{exchange.failure}"))
    text = f"GET {path}: {exchange.status}"
    if is_among(exchange.code, statuses or service.health_status):
        return Probed(True, text)
    return Probed(False, clip(f"{text}{_explained(exchange, host)}"))


def is_among(code: int, statuses: Sequence[str]) -> bool:
    """Is the status one of these codes ("204") and ranges ("200-299")?"""
    ranges = (one.partition("-") for one in statuses)
    return any(int(low) <= code <= int(high or low) for low, _, high in ranges)


def _explained(exchange: Exchange, host: str) -> str:
    """What an answer that is not healthy may be about."""
    if exchange.code in (400, 421):
        refuses = "Django's ALLOWED_HOSTS refuses" if _django_refuses(host) else "perhaps the application refuses"
        return f'; {refuses} the Host "{host}": set health_host'
    if 300 <= exchange.code < 400:
        location = _LOCATION.search(exchange.fields)
        where = f" to {location[1]}" if location else ""
        return f"{where}; that is not healthy unless health_status says so"
    return ""


def _django_refuses(host: str) -> bool:
    """Asks Django, if the application is one: its answer to a wrong Host says nothing, and its log is mostly off."""
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    request = sys.modules.get("django.http.request")
    if settings is None or request is None:
        return False
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:  # as HttpRequest.get_host has it
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    return not request.validate_host(request.split_domain_port(host)[0], allowed)


def _ask(exchange: Exchange) -> None:
    given = len(exchange.start())
    while not exchange.ended:
        if exchange.span is not None:
            os.close(exchange.span.fd)
            exchange.span = None
        given += len(exchange.more())
        if given > _LONGEST:
            exchange.abandon()


def _unread(exchange: Responder, data: bytes) -> None:
    """Where write() goes."""
