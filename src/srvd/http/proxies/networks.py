"""Sets of networks, and whether an address belongs to a set. They tell which peers may describe another client.

Opens no socket and resolves no name: addresses are text, as sockets and header fields have them. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

__all__ = ["UNIX", "Networks", "plain", "plain_number"]

UNIX = "unix"
"""Stands for every peer that comes through a Unix socket; its address is ""."""

_MOST_SEEN = 1024


class Networks:
    """`"10.1.2.3" in Networks(["10.0.0.0/8", "unix"])`. A text that is no address belongs to no network."""

    __slots__ = ("_fours", "_seen", "_sixes", "_unix")

    def __init__(self, networks: Iterable[str]) -> None:
        """`networks`: addresses or CIDR blocks (RFC 4632, RFC 4291 section 2.3), and `UNIX`. Raises `ValueError`."""
        words = list(networks)
        parsed = [ipaddress.ip_network(word) for word in words if word != UNIX]
        self._unix = UNIX in words
        self._fours = _masks(network for network in parsed if network.version == 4)
        self._sixes = _masks(network for network in parsed if network.version == 6)
        self._seen: dict[str, bool] = {}  # bounded: a client that chooses its addresses must not fill the memory

    def __contains__(self, address: str) -> bool:
        if not address:
            return self._unix
        known = self._seen.get(address)
        if known is None:
            known = self._look(address)
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen[address] = known
        return known

    def _look(self, address: str) -> bool:
        try:
            number = ipaddress.ip_address(plain(address).partition("%")[0])
        except ValueError:
            return False
        blocks = self._fours if number.version == 4 else self._sixes
        return any(int(number) & mask == network for network, mask in blocks)


def plain_number(number: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Returns an address as text; an IPv4-mapped IPv6 address as IPv4, like `plain`."""
    mapped = number.ipv4_mapped if isinstance(number, ipaddress.IPv6Address) else None
    return str(mapped or number)


def plain(address: str) -> str:
    """Returns an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), as sockets for both families give them, as IPv4;
    any other address as it is.
    """
    return address.removeprefix("::ffff:") if "." in address else address


def _masks(networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> list[tuple[int, int]]:
    return [(int(network.network_address), int(network.netmask)) for network in networks]
