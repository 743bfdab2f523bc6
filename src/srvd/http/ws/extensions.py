"""Agrees with a client on permessage-deflate (RFC 7692 section 7.1), the only extension there is.

Compresses nothing: `deflate.py` does. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from srvd.http.h1.refusal import Refusal

__all__ = ["TOKEN", "Agreement", "Deflate", "Offer", "agree", "read_offers"]

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - a token of RFC 9110 section 5.6.2
_NAME = re.compile(rf"[ \t]*({_TOKEN})")
_PARAMETER = re.compile(rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?')
_END = re.compile(r"[ \t]*(?:,|$)")
_ESCAPED = re.compile(r"\\(.)")
TOKEN = re.compile(_TOKEN)
_BITS = re.compile("[89]|1[0-5]")
_LARGEST = 15
_SMALLEST = 9  # zlib compresses with no smaller window


class Deflate(NamedTuple):
    """What the server would like."""

    bits: int = 12
    """Base-2 logarithm of the window in both directions, 9 to 15. With 12, a WebSocket takes some 40 KiB."""
    threshold: int = 64
    """Messages that are shorter, in bytes, are not compressed."""


class Offer(NamedTuple):
    """One extension that the client would like."""

    name: str
    parameters: tuple[tuple[str, str | None], ...]


class Agreement(NamedTuple):
    """What both sides do from now on."""

    server_bits: int = 15
    client_bits: int = 15
    server_takeover: bool = True  # the window outlives a message
    client_takeover: bool = True
    threshold: int = 64
    answer: bytes = b""
    """The value of Sec-WebSocket-Extensions in the response."""


def read_offers(value: str) -> Iterator[Offer]:
    """Yields the members of Sec-WebSocket-Extensions (RFC 6455 section 9.1). Raises `Refusal` if it is malformed."""
    at = 0
    while at < len(value):
        name = _NAME.match(value, at)
        parameters: list[tuple[str, str | None]] = []
        if name:
            at = name.end()
            while found := _PARAMETER.match(value, at):
                at = found.end()
                parameters.append((found[1], _value(found)))
        end = _END.match(value, at)
        if not end:
            raise Refusal(400, "malformed Sec-WebSocket-Extensions")
        at = end.end()
        if name:  # members of a list may be empty (RFC 9110 section 5.6.1)
            yield Offer(name[1], tuple(parameters))


def _value(parameter: re.Match[str]) -> str | None:
    if parameter[3] is None:
        return parameter[2]
    text = _ESCAPED.sub(r"\1", parameter[3])
    if not TOKEN.fullmatch(text):
        raise Refusal(400, "malformed Sec-WebSocket-Extensions")
    return text


def agree(offers: Iterable[Offer], wanted: Deflate | None) -> Agreement | None:
    """Returns the agreement by the first offer that the server can keep (RFC 7692 section 5.1); None: by none."""
    found = None
    for offer in offers:  # all: a malformed one is refused, wherever it stands
        if wanted is not None and found is None and offer.name == "permessage-deflate":
            found = _accept(offer.parameters, wanted)
    return found


def _accept(parameters: tuple[tuple[str, str | None], ...], wanted: Deflate) -> Agreement | None:
    given = dict(parameters)
    server_bits = client_bits = _LARGEST
    if len(given) != len(parameters):
        return None
    for name, value in parameters:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
        elif name == "server_max_window_bits":
            server_bits = _read_bits(value)
            if server_bits < _SMALLEST:
                return None
        elif name == "client_max_window_bits":
            client_bits = _LARGEST if value is None else _read_bits(value)
            if not client_bits:
                return None
        else:
            return None
    return _agreement(given, min(server_bits, wanted.bits), client_bits, wanted)


def _read_bits(value: str | None) -> int:
    """Returns the size of a window, 8 to 15; 0 for what is none."""
    return int(value) if value is not None and _BITS.fullmatch(value) else 0


def _agreement(given: dict[str, str | None], server_bits: int, client_bits: int, wanted: Deflate) -> Agreement:
    answer = ["permessage-deflate"]
    answer += [name for name in ("server_no_context_takeover", "client_no_context_takeover") if name in given]
    if server_bits < _LARGEST or "server_max_window_bits" in given:
        answer.append(f"server_max_window_bits={server_bits}")
    if "client_max_window_bits" in given:  # else the client does not know the parameter (section 7.1.2.2)
        client_bits = min(client_bits, wanted.bits)
        answer.append(f"client_max_window_bits={client_bits}")
    return Agreement(
        server_bits, client_bits,
        "server_no_context_takeover" not in given, "client_no_context_takeover" not in given,
        wanted.threshold, "; ".join(answer).encode(),
    )  # fmt: skip
