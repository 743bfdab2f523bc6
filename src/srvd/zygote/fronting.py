"""Makes the fronts of listeners (TLS, PROXY protocol, trusted proxies): once, before any worker is forked.

Reads no file: certificates and keys come in a memfd that the daemon has filled; it is closed after reading.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgpack

from srvd.errors import BadFrame, ConfigInvalid, LoadFailed
from srvd.wire import links

if TYPE_CHECKING:
    from srvd.worker.net.front import Front

__all__ = ["make"]


def make(wanted: links.Load, rest: list[int]) -> list[Front | None]:
    """The front of each listener; None for a listener of plain HTTP without trusted proxies.

    rest: the descriptors that follow those of the listeners; they are closed. Raises `LoadFailed`, `BadFrame`.
    """
    if not any(listener.get("front") for listener in wanted.listeners):
        return [None] * len(wanted.listeners)
    # Imported here, because most listeners have no front.
    from srvd.worker.net.front import make_front

    secrets = _secrets(rest)
    made: dict[str, Front] = {}
    try:
        for listener in wanted.listeners:
            name = str(listener["name"])
            if listener.get("front") and name not in made:
                made[name] = make_front(listener["front"], secrets.get(name))
    except ConfigInvalid as exc:
        raise LoadFailed(exc.message, hint="the OpenSSL of the pool's `python` may not be the daemon's") from exc
    return [made.get(str(listener["name"])) for listener in wanted.listeners]


def _secrets(rest: list[int]) -> dict[str, Any]:
    """The packed certificates and keys, by the name of the listener. Raises `BadFrame`."""
    if not rest:
        return {}
    try:
        found = msgpack.unpackb(os.pread(rest[0], os.fstat(rest[0]).st_size, 0))
    finally:
        for fd in rest:
            os.close(fd)
    if not isinstance(found, dict):
        raise BadFrame("read the certificates: they do not fit; the link is closed")
    return found
