"""What trusted proxies say about a client – address, scheme, host, prefix – put in the place of the proxy's own.

Believes nobody by itself: whether the connection's peer is trusted is decided by its owner, once. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple

from srvd.http import guard
from srvd.http.head import Environ, HeadReader, Request
from srvd.http.limits import Limits
from srvd.http.networks import Networks, plain_number
from srvd.http.refusal import Refusal

__all__ = ["FIELDS", "FORWARDED", "X_FORWARDED", "ForwardedReader", "believe", "disbelieve"]

X_FORWARDED = "x-forwarded"
FORWARDED = "forwarded"
"""The families of fields: X-Forwarded-For, -Proto, -Host and -Prefix, or Forwarded of RFC 7239."""

_FOR, _PROTO, _HOST, _PREFIX = (f"HTTP_X_FORWARDED_{name}" for name in ("FOR", "PROTO", "HOST", "PREFIX"))
_ELEMENTS = "HTTP_FORWARDED"
_OF_FAMILY = {X_FORWARDED: frozenset({_FOR, _PROTO, _HOST, _PREFIX}), FORWARDED: frozenset({_ELEMENTS})}

# Fields that say whether the client's connection was encrypted, in other words than X-Forwarded-Proto. They are not
# believed, but whoever contradicts them is not either.
_OTHER_SCHEMES = (
    _PROTO, "HTTP_X_FORWARDED_PROTOCOL", "HTTP_X_FORWARDED_SCHEME", "HTTP_X_FORWARDED_SSL", "HTTP_X_URL_SCHEME",
    "HTTP_X_SCHEME", "HTTP_FRONT_END_HTTPS",
)  # fmt: skip

FIELDS = frozenset({
    _FOR, _PROTO, _HOST, _PREFIX, _ELEMENTS, *_OTHER_SCHEMES,
    "HTTP_X_FORWARDED", "HTTP_X_FORWARDED_BY", "HTTP_X_FORWARDED_PATH", "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_SERVER", "HTTP_X_FORWARDED_URI", "HTTP_FORWARDED_FOR", "HTTP_X_ORIGINAL_FORWARDED_FOR",
    "HTTP_X_ORIGINAL_HOST", "HTTP_X_HOST", "HTTP_X_SCRIPT_NAME", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP",
    "HTTP_X_CLUSTER_CLIENT_IP", "HTTP_CLIENT_IP", "HTTP_TRUE_CLIENT_IP", "HTTP_CF_CONNECTING_IP",
    "HTTP_FASTLY_CLIENT_IP", "HTTP_X_REMOTE_ADDR", "HTTP_X_REMOTE_IP",
})  # fmt: skip
"""Every field that is known to speak of the client in the words of a proxy, by its key in the environ."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https", "on": "https", "off": "http"}
_OWS = " \t"
_MOST_HOPS = 100
# RFC 3986: a path, percent-encoded; no empty segment at its beginning, which browsers take for a host.
_PATH = re.compile(r"/(?!/)(?:[0-9A-Za-z\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
_PERCENT = re.compile("%([0-9A-Fa-f]{2})")
# RFC 7239 section 6: identifiers that hide the address; squid writes "unknown" into X-Forwarded-For as well.
_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}|_[0-9A-Za-z._\-]+))?|([0-9A-Fa-f:.]+)")
_HIDDEN = re.compile(r"(?:unknown|_[0-9A-Za-z._\-]+)(?::(?:[0-9]{1,5}|_[0-9A-Za-z._\-]+))?", re.IGNORECASE)
# RFC 7239 section 4: token "=" ( token / quoted-string ), then ";", "," or the end.
_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    r"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|\"((?:[^\"\\]|\\.)*)\")[ \t]*(?:([;,])|\Z)"
)
_EMPTY = re.compile(r"[ \t]*(,|\Z)")
_QUOTED_PAIR = re.compile(r"\\(.)")


class _Hop(NamedTuple):
    """What one proxy said of the peer that it had; "": nothing."""

    text: str  # as received
    address: str  # "" for one that is unknown, or hidden on purpose
    port: str
    scheme: str
    host: str


class ForwardedReader(HeadReader):
    """Reads heads as its parent does, and then lets the proxy speak: for the connections of one listener whose peers
    are all trusted, or all not.
    """

    def __init__(self, limits: Limits, family: str, networks: Networks, *, trusted: bool) -> None:
        super().__init__(limits)
        self._family = family
        self._networks = networks
        self._trusted = trusted

    def read(self, head: bytes, template: Environ) -> Request:
        """As `HeadReader.read`. Raises `Refusal` also for what a trusted proxy must not say."""
        request = super().read(head, template)
        if self._trusted:
            believe(request.environ, self._family, self._networks)
        else:
            disbelieve(request.environ)
        return request


def disbelieve(environ: Environ) -> None:
    """Takes out what anybody could have written."""
    for key in FIELDS & environ.keys():
        del environ[key]


def believe(environ: Environ, family: str, networks: Networks) -> None:
    """Puts the client in the place of the proxy: REMOTE_ADDR, REMOTE_PORT, wsgi.url_scheme, HTTP_HOST, SCRIPT_NAME.

    The peer is trusted. Of the fields, those of `family` stay, cut to what trusted proxies wrote. Raises `Refusal`
    with 400 for what is malformed or contradicts itself; what is left of the client's own address is never looked at
    but for its syntax.
    """
    told = FIELDS & environ.keys()
    if not told:
        return
    kept = {key: environ[key] for key in _OF_FAMILY[family] & told}
    others = [_scheme(environ[key]) for key in _OTHER_SCHEMES if key in told and key not in kept]
    for key in told:
        del environ[key]
    scheme = (_believe_x_forwarded if family == X_FORWARDED else _believe_forwarded)(environ, kept, networks)
    if scheme:
        if any(other not in (scheme, "") for other in others):
            raise Refusal(400, "forwarding fields contradict each other about the scheme")
        environ["wsgi.url_scheme"] = scheme


def _believe_forwarded(environ: Environ, kept: Environ, networks: Networks) -> str:
    """Forwarded of RFC 7239; the scheme it tells, or ""."""
    if _ELEMENTS not in kept:
        return ""
    hops = _elements(kept[_ELEMENTS])
    if not hops:
        return ""
    client = _client(hops, networks)
    hop = hops[client]
    environ[_ELEMENTS] = ", ".join(hop.text for hop in hops[client:])
    _put_address(environ, hop)
    if hop.host:
        environ["HTTP_HOST"] = hop.host
    return hop.scheme


def _believe_x_forwarded(environ: Environ, kept: Environ, networks: Networks) -> str:
    """X-Forwarded-For, -Proto, -Host, -Prefix; the scheme they tell, or ""."""
    hops = [_hop(text) for text in _values(kept, _FOR)]
    client = 0
    if hops:
        client = _client(hops, networks)
        environ[_FOR] = ", ".join(hop.text for hop in hops[client:])
        _put_address(environ, hops[client])
    scheme = _told(environ, kept, _PROTO, client, len(hops), _known_scheme)
    host = _told(environ, kept, _HOST, client, len(hops), _host)
    if host:
        environ["HTTP_HOST"] = host
    environ["SCRIPT_NAME"] += _told(environ, kept, _PREFIX, client, len(hops), _prefix)
    return scheme


def _client(hops: list[_Hop], networks: Networks) -> int:
    """Walks from the right, nearest to us, past trusted networks: the first that is none of them is the client."""
    for at in range(len(hops) - 1, 0, -1):
        address = hops[at].address
        if not address or address not in networks:
            return at
    return 0


def _put_address(environ: Environ, hop: _Hop) -> None:
    environ["REMOTE_ADDR"] = hop.address
    environ.pop("REMOTE_PORT", None)
    if hop.port:
        environ["REMOTE_PORT"] = hop.port


def _told(environ: Environ, kept: Environ, key: str, client: int, hops: int, read: Callable[[str], str]) -> str:
    """The value of a field that proxies either set or add to; "" if there is none.

    One value, or several that are equal, are the client's. Several are if they stand beside the addresses of
    X-Forwarded-For, one for one. All else could be the client's own invention.
    """
    values = [read(text) for text in _values(kept, key)]
    if not values:
        return ""
    if len(values) == hops:
        value = values[client]
    elif len(set(values)) == 1:
        value = values[0]
    else:
        raise Refusal(400, f"{key}: which value is the client's cannot be told")
    environ[key] = value
    return value


def _values(kept: Environ, key: str) -> list[str]:
    text = kept.get(key)
    if text is None:
        return []
    values = [word for value in text.split(",") if (word := value.strip(_OWS))]  # RFC 9110 section 5.6.1
    if len(values) > _MOST_HOPS:
        raise Refusal(400, f"{key}: more than {_MOST_HOPS} values")
    return values


def _hop(text: str) -> _Hop:
    address, port = _node(text)
    return _Hop(text, address, port, "", "")


def _node(text: str) -> tuple[str, str]:
    """Address and port of a node: of RFC 7239 section 6, or as X-Forwarded-For has it. Hidden ones have neither."""
    match = _NODE.fullmatch(text)
    if match is None:
        if _HIDDEN.fullmatch(text):
            return "", ""
        raise Refusal(400, "a forwarded address is malformed")
    bracketed, four, port, bare = match.groups()
    try:
        number = ipaddress.IPv4Address(four) if four else ipaddress.IPv6Address(bracketed or bare)
    except ValueError:
        raise Refusal(400, "a forwarded address is malformed") from None
    return plain_number(number), "" if port is None or port[0] == "_" else port


def _scheme(text: str) -> str:
    """The scheme that a field means, "" if it is none that is known."""
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
    """Where the application is mounted, as SCRIPT_NAME has it: decoded, without a slash at its end."""
    if text in ("", "/"):
        return ""
    if not _PATH.fullmatch(text):
        raise Refusal(400, "a forwarded prefix is no path")
    return _PERCENT.sub(lambda match: chr(int(match[1], 16)), text.rstrip("/"))


def _elements(text: str) -> list[_Hop]:
    """The elements of Forwarded, the nearest to us last."""
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    start = at = 0
    while at < len(text):
        if not pairs and (match := _EMPTY.match(text, at)):  # RFC 9110 section 5.6.1: empty elements are ignored
            start = at = match.end()
            continue
        match = _PAIR.match(text, at)
        if match is None:
            raise Refusal(400, "Forwarded is malformed")
        name, token, quoted, end = match.groups()
        value = token if token is not None else _QUOTED_PAIR.sub(r"\1", quoted)
        if name.lower() in pairs:
            raise Refusal(400, "Forwarded says something twice")
        pairs[name.lower()] = value
        at = match.end()
        if end == ";" and at == len(text):
            raise Refusal(400, "Forwarded is malformed")
        if end != ";":
            hops.append(_element(text[start : match.end() - bool(end)].strip(_OWS), pairs))
            pairs = {}
            start = at
    if len(hops) > _MOST_HOPS:
        raise Refusal(400, f"Forwarded: more than {_MOST_HOPS} elements")
    return hops


def _element(text: str, pairs: dict[str, str]) -> _Hop:
    address, port = _node(pairs["for"]) if "for" in pairs else ("", "")
    scheme = _known_scheme(pairs["proto"]) if "proto" in pairs else ""
    host = _host(pairs["host"]) if "host" in pairs else ""
    return _Hop(text, address, port, scheme, host)
