"""Replaces the address, scheme, host and prefix of a proxy by what trusted proxies say about the client.

Trusts no peer by itself: the owner of the connection decides once whether its peer is trusted. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from srvd.http.h1 import guard
from srvd.http.h1.head import HeadReader
from srvd.http.h1.limits import Limits
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Client, Fields, Sink, joined
from srvd.http.proxies.networks import Networks, plain_number

__all__ = ["FIELDS", "FORWARDED", "X_FORWARDED", "ForwardedReader", "believe", "disbelieve"]

X_FORWARDED = "x-forwarded"
FORWARDED = "forwarded"
"""The families of fields: X-Forwarded-For, -Proto, -Host and -Prefix, or Forwarded of RFC 7239."""

_FOR, _PROTO, _HOST, _PREFIX = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix"
_ELEMENTS = b"forwarded"
_OF_FAMILY = {X_FORWARDED: frozenset({_FOR, _PROTO, _HOST, _PREFIX}), FORWARDED: frozenset({_ELEMENTS})}

# Fields that say in other words than X-Forwarded-Proto whether the client's connection was encrypted. Their values are
# not used, but a request in which a proxy contradicts them is refused.
_OTHER_SCHEMES = (
    _PROTO, b"x-forwarded-protocol", b"x-forwarded-scheme", b"x-forwarded-ssl", b"x-url-scheme", b"x-scheme",
    b"front-end-https",
)  # fmt: skip

FIELDS = frozenset({
    _FOR, _PROTO, _HOST, _PREFIX, _ELEMENTS, *_OTHER_SCHEMES,
    b"x-forwarded", b"x-forwarded-by", b"x-forwarded-path", b"x-forwarded-port", b"x-forwarded-server",
    b"x-forwarded-uri", b"forwarded-for", b"x-original-forwarded-for", b"x-original-host", b"x-host", b"x-script-name",
    b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"client-ip", b"true-client-ip", b"cf-connecting-ip",
    b"fastly-client-ip", b"x-remote-addr", b"x-remote-ip",
})  # fmt: skip
"""Every field by which proxies are known to describe the client."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https", "on": "https", "off": "http"}
_OWS = " \t"
_MOST_HOPS = 100  # of trusted proxies in a row
# RFC 3986: a path, percent-encoded; no empty segment at its beginning, which browsers take for a host.
_PATH = re.compile(r"/(?!/)(?:[0-9A-Za-z\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_PERCENT = re.compile("%([0-9A-Fa-f]{2})")
# An address of RFC 7239 section 6, or as X-Forwarded-For has it. Any other text means that the client is not known:
# identifiers that hide the address, squid's "unknown", and text that a proxy should not have passed on.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}|_[0-9A-Za-z._\-]+))?|([0-9A-Fa-f:.]+)")
# RFC 7239 section 4: token "=" ( token / quoted-string ), then ";" or the end of the element.
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    r"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|\"((?:[^\"\\]|\\.)*)\")[ \t]*(?:(;)|\Z)"
)
_QUOTED_PAIR = re.compile(r"\\(.)")


class _Hop(NamedTuple):
    """What one proxy said about its own peer. "" for a part that the proxy did not state."""

    text: str  # as received
    address: str  # "" for a peer that is unknown, or hidden on purpose
    port: str
    scheme: str
    host: str


_Values = dict[bytes, str]


class ForwardedReader(HeadReader):
    """Reads heads as its parent does, then applies the forwarding fields (`trusted`) or removes them. One reader serves
    connections of one listener whose peers are all trusted, or all not.
    """

    def __init__(self, limits: Limits, sink: Sink, family: str, networks: Networks, *, trusted: bool) -> None:
        introduce = partial(believe, family=family, networks=networks) if trusted else disbelieve
        super().__init__(limits, sink, introduce)


def disbelieve(fields: Fields) -> tuple[Fields, None]:
    """Removes the forwarding fields, which any client could have written."""
    return [field for field in fields if field[0].lower() not in FIELDS], None


def believe(fields: Fields, family: str, networks: Networks) -> tuple[Fields, Client | None]:
    """Returns the fields for the application, and the client as the proxy describes it (None: no forwarding field).

    The peer is trusted. Of the forwarding fields, those of `family` stay, cut to what trusted proxies wrote: the lists
    are read from the right, and elements to the left of the client's address are not read. Raises `Refusal` with 400
    if an element of a trusted proxy is malformed, or if elements contradict each other.
    """
    told = [field for field in fields if field[0].lower() in FIELDS]
    if not told:
        return fields, None
    values = {name: value.decode("latin-1") for name, value in joined(told).items()}
    kept = {name: value for name, value in values.items() if name in _OF_FAMILY[family]}
    others = [_scheme(values[name]) for name in _OTHER_SCHEMES if name in values and name not in kept]
    stay: _Values = {}
    client = (_believe_x_forwarded if family == X_FORWARDED else _believe_forwarded)(stay, kept, networks)
    if client.scheme and any(other not in (client.scheme, "") for other in others):
        raise Refusal(400, "forwarding fields contradict each other about the scheme")
    plain, _ = disbelieve(fields)
    return [*plain, *((name, value.encode("latin-1")) for name, value in stay.items())], client


def _believe_forwarded(stay: _Values, kept: _Values, networks: Networks) -> Client:
    """Forwarded of RFC 7239."""
    hops = _walk(_from_the_right(kept.get(_ELEMENTS, "")), _element, networks)
    if not hops:
        return Client(None, "", "", "", "")
    client = hops[-1]
    stay[_ELEMENTS] = _spell(hops)
    return Client(client.address, client.port, client.scheme, client.host, "")


def _believe_x_forwarded(stay: _Values, kept: _Values, networks: Networks) -> Client:
    """X-Forwarded-For, -Proto, -Host, -Prefix."""
    addresses = _values(kept, _FOR)
    hops = _walk(reversed(addresses), _hop, networks)
    address, port = None, ""
    if hops:
        stay[_FOR] = _spell(hops)
        address, port = hops[-1].address, hops[-1].port
    places = len(addresses), len(hops)
    scheme = _told(stay, kept, _PROTO, places, _known_scheme)
    host = _told(stay, kept, _HOST, places, _host)
    return Client(address, port, scheme, host, _told(stay, kept, _PREFIX, places, _prefix))


def _walk(texts: Iterable[str], read: Callable[[str], _Hop], networks: Networks) -> list[_Hop]:
    """Returns the hops from the right (nearest to the server) up to the first address outside the trusted networks,
    which is the client's.

    Elements to the left of the client's address were written by the client, and are never read.
    """
    hops: list[_Hop] = []
    for text in texts:
        if len(hops) == _MOST_HOPS:
            raise Refusal(400, f"more than {_MOST_HOPS} forwarding proxies")
        hops.append(read(text))
        address = hops[-1].address
        if not address or address not in networks:
            break
    return hops


def _spell(hops: list[_Hop]) -> str:
    return ", ".join(hop.text for hop in reversed(hops))


def _told(stay: _Values, kept: _Values, name: bytes, places: tuple[int, int], read: Callable[[str], str]) -> str:
    """Returns the client's value of a field that some proxies set and others append to; "" if there is none.

    Used are: the value at the client's place if there are as many values as addresses in X-Forwarded-For; otherwise
    the only value, or the common one if all are equal. Raises `Refusal` with 400 in any other case, because the client
    could have written some of the values.

    places: the number of addresses, and the place of the client's address among them, counted from the right.
    """
    values = _values(kept, name)
    if not values:
        return ""
    addresses, client = places
    if len(values) == addresses:
        value = read(values[-client])
    elif len({read(text) for text in values}) == 1:
        value = read(values[0])
    else:
        raise Refusal(400, f"{name.decode()}: which value is the client's cannot be told")
    stay[name] = value
    return value


def _values(kept: _Values, name: bytes) -> list[str]:
    # RFC 9110 section 5.6.1: empty elements are ignored.
    return [word for value in kept.get(name, "").split(",") if (word := value.strip(_OWS))]


def _hop(text: str) -> _Hop:
    address, port = _node(text)
    return _Hop(text, address, port, "", "")


def _node(text: str) -> tuple[str, str]:
    """Returns the address and port of a node; two empty strings for a hidden or unknown node, or no address."""
    match = _NODE.fullmatch(text)
    if match is None:
        return "", ""
    bracketed, four, port, bare = match.groups()
    try:
        number = ipaddress.IPv4Address(four) if four else ipaddress.IPv6Address(bracketed or bare)
    except ValueError:
        return "", ""
    return plain_number(number), "" if port is None or port[0] == "_" else port


def _scheme(text: str) -> str:
    """Returns the scheme that a field means; "" for an unknown one."""
    return _SCHEMES.get(text.strip(_OWS).lower(), "")


def _known_scheme(text: str) -> str:
    scheme = _scheme(text)
    if not scheme:
        raise Refusal(400, "a forwarded scheme is neither http nor https")
    return scheme


def _host(text: str) -> str:
    guard.check_host(text)
    return text


def _prefix(text: str) -> str:
    """Returns the path where the application is mounted, as in SCRIPT_NAME: decoded, without a slash at the end."""
    if text in ("", "/"):
        return ""
    if not _PATH.fullmatch(text):
        raise Refusal(400, "a forwarded prefix is no path")
    return _PERCENT.sub(lambda match: chr(int(match[1], 16)), text.rstrip("/"))


def _from_the_right(text: str) -> Iterator[str]:
    """Yields the elements of Forwarded, the one of the nearest proxy first.

    A trusted proxy wrote the last element, so the last element is well-formed. Read from the right, its quotes pair up
    and its beginning is certain; read from the left, a quote that the client left open would hide that beginning.
    """
    end = len(text)
    quoted = False
    for at in range(end - 1, -1, -1):
        if text[at] == '"':
            before = at
            while before and text[before - 1] == "\\":
                before -= 1
            if (at - before) % 2 == 0:  # no quoted-pair
                quoted = not quoted
        elif text[at] == "," and not quoted:
            if element := text[at + 1 : end].strip(_OWS):
                yield element
            end = at
    if element := text[:end].strip(_OWS):
        yield element


def _element(text: str) -> _Hop:
    pairs: dict[str, str] = {}
    at, more = 0, ";"
    while more:
        match = _PAIR.match(text, at)
        if match is None:
            raise Refusal(400, "Forwarded is malformed")
        name, token, quoted, more = match.groups()
        if name.lower() in pairs:
            raise Refusal(400, "Forwarded says something twice")
        pairs[name.lower()] = token if token is not None else _QUOTED_PAIR.sub(r"\1", quoted)
        at = match.end()
    address, port = _node(pairs["for"]) if "for" in pairs else ("", "")
    scheme = _known_scheme(pairs["proto"]) if "proto" in pairs else ""
    host = _host(pairs["host"]) if "host" in pairs else ""
    return _Hop(text, address, port, scheme, host)
