"""Makes the URL of the health probe, so that it looks to the application like a client's request.

Sends nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from srvd.config.settings import Config, PoolSettings
from srvd.errors import ConfigInvalid
from srvd.linux.sockets import parse_address

__all__ = ["misfits", "probe_url"]

_NUMBER = re.compile(r"[0-9.]*|.*:.*")  # every IPv4 address, or one of IPv6

_HOST = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_STATUS = re.compile("[1-5][0-9]{2}(?:-[1-5][0-9]{2})?")


def probe_url(config: Config, pool: str, path: str = "") -> str:
    """Returns SCHEME://HOST/PATH for a pool. `path`: another path than the setting `health`.

    The scheme is https if a listener speaks TLS or trusts proxies: else an application that redirects http to https
    would answer the probe with the redirect.
    """
    settings = config.pools[pool]
    listeners = [config.listeners[name] for name in settings.listeners if name in config.listeners]
    secure = any(listener.certificate or listener.trusted_proxies for listener in listeners)
    binds = [text for listener in listeners for text in listener.bind]
    host = settings.health_host or next(filter(None, map(_name, binds)), "localhost")
    return f"{'https' if secure else 'http'}://{host}{path or settings.health}"


def misfits(pool: PoolSettings) -> Iterator[tuple[str, str]]:
    """Yields the health settings that make no valid request, and what is wrong with each."""
    if pool.health_host and not _HOST.fullmatch(pool.health_host):
        yield "health_host", f'found "{pool.health_host}", expected a host, with or without its port: "shop.example"'
    wrong = next((text for text in pool.health_status if not _STATUS.fullmatch(text)), "")
    if wrong:
        yield "health_status", f'found "{wrong}", expected statuses of three digits and ranges of them: "200-299"'


def _name(bind: str) -> str:
    """Returns the host name in an address; "" for an IP address, a Unix socket or a descriptor."""
    try:
        address = parse_address(bind)
    except ConfigInvalid:
        return ""
    known = address.kind in ("inet", "inet6") and not _NUMBER.fullmatch(address.host)
    return address.host if known else ""
