"""The health probe: one GET request to the application, made within the worker, without a socket.

Sets no time limit and makes one request: the daemon orders the next one, and kills a worker that does not answer. Knows
no calling convention.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Ends
from srvd.wire.links import Probed, clip
from srvd.worker.app.hooks import PROBE
from srvd.worker.context import WorkerContext
from srvd.worker.net.responder import Reply

__all__ = ["is_among", "probe"]

_URL = re.compile(r"(?:(https?)://([^/?]*))?(.*)", re.DOTALL)
_LOCATION = re.compile(r"^Location: *([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


def probe(context: WorkerContext, target: str, statuses: Sequence[str], probed: Callable[[Probed], None]) -> None:
    """Makes a GET request for `target`, and calls `probed` with the result, at once or later. The worker is healthy if
    the reply has one of `statuses`.

    target: a URL (of `config/health.py`), whose scheme and host appear to the application as those of a client's
    request; or only a path.
    """
    scheme, host, path = (found or "" for found in _URL.fullmatch(target).groups())  # type: ignore[union-attr]  # it takes any text
    scheme, host = scheme or "http", host or "localhost"
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: srvd-probe\r\nConnection: close\r\n\r\n"
    ends = Ends("127.0.0.1", "0", server_port="443" if scheme == "https" else "80", scheme=scheme)
    template = context.heads.sink.connection(ends) | {PROBE: True}
    try:
        request = context.heads.read(head.encode("utf-8"), template)
    except Refusal as refusal:
        probed(Probed(False, f"GET {path}: this is no request: {refusal.why}"))
        return
    context.convention.ask(request, lambda reply: probed(_judged(reply, path, host, statuses)))


def _judged(reply: Reply, path: str, host: str, statuses: Sequence[str]) -> Probed:
    if reply.failure:
        return Probed(False, clip(f"GET {path}: the application failed\n{reply.failure}"))
    text = f"GET {path}: {reply.status}"
    if is_among(reply.code, statuses):
        return Probed(True, text)
    return Probed(False, clip(f"{text}{_explained(reply, host)}"))


def is_among(code: int, statuses: Sequence[str]) -> bool:
    """Tells whether the status is among these codes ("204") and ranges ("200-299")."""
    ranges = (one.partition("-") for one in statuses)
    return any(int(low) <= code <= int(high or low) for low, _, high in ranges)


def _explained(reply: Reply, host: str) -> str:
    """Returns the likely cause of an unhealthy reply, as the end of a sentence, or ""."""
    if reply.code in (400, 421):
        refuses = "Django's ALLOWED_HOSTS refuses" if _django_refuses(host) else "perhaps the application refuses"
        return f'; {refuses} the Host "{host}": set health_host'
    if 300 <= reply.code < 400:
        location = _LOCATION.search(reply.fields)
        where = f" to {location[1]}" if location else ""
        return f"{where}; that is not healthy unless health_status says so"
    return ""


def _django_refuses(host: str) -> bool:
    """Tells whether Django refuses the host, if the application uses Django. Django's answer to a wrong Host does not
    name the reason, and its log is mostly off.
    """
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    request = sys.modules.get("django.http.request")
    if settings is None or request is None:
        return False
    allowed = settings.ALLOWED_HOSTS
    if settings.DEBUG and not allowed:  # as HttpRequest.get_host has it
        allowed = [".localhost", "127.0.0.1", "[::1]"]
    return not request.validate_host(request.split_domain_port(host)[0], allowed)
