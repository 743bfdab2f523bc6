"""The health probe: one GET, called on the application in the worker itself, without a socket.

Sets no limit of time: the daemon does, and kills a worker that does not come back.
"""

from __future__ import annotations

from io import BytesIO

from srvd.http.refusal import Refusal
from srvd.wire.family import Probed, clip
from srvd.worker.gate import base_environ
from srvd.worker.hooks import PROBE
from srvd.worker.service import Service
from srvd.worker.wsgi import Exchange

__all__ = ["probe"]

# A health page is short; of an endless one this much is enough.
_LONGEST = 1 << 20


def probe(service: Service, worker: str, target: str) -> Probed:
    """Whether the application answers GET `target` with 2xx or 3xx.

    `target` is a path, or a whole URI (http://shop.example/healthz) for an application that looks at Host.
    """
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: srvd-probe\r\nConnection: close\r\n\r\n"
    template = base_environ(worker, service.multithread) | {"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "0", PROBE: True}
    try:
        request = service.heads.read(head.encode("utf-8"), template)
    except Refusal as refusal:
        return Probed(False, f"GET {target}: this is no request: {refusal.why}")
    request.environ["wsgi.input"] = BytesIO()
    exchange = Exchange(service, request, _unread)
    given = len(exchange.start())
    while not exchange.ended:
        given += len(exchange.more())
        if given > _LONGEST:
            exchange.abandon()
    if exchange.failure:
        return Probed(False, clip(f"GET {target}: the application failed\n{exchange.failure}"))
    return Probed(200 <= exchange.code < 400, f"GET {target}: {exchange.status}")


def _unread(data: bytes) -> None:
    """Where write() goes."""
