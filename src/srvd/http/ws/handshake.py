"""The opening handshake (RFC 6455 section 4.2): judges a request's head, and writes the 101 that accepts it.

Reads no bytes: the head was read by `http/h1`, which has checked its syntax, and answers refusals. Pure.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from hashlib import sha1
from typing import NamedTuple

from srvd.http.h1.head import Request
from srvd.http.h1.refusal import Refusal
from srvd.http.h1.response import ResponseInvalid, check_fields
from srvd.http.h1.sink import Fields, joined
from srvd.http.ws.extensions import TOKEN, Agreement, Deflate, agree, read_offers

__all__ = ["Handshake", "asks_for_websocket", "judge"]

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")  # sixteen bytes in base64
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OWS = " \t"


class Handshake(NamedTuple):
    """An opening handshake that may be accepted."""

    key: bytes
    subprotocols: tuple[str, ...]  # that the client speaks, the ones it likes best first
    agreement: Agreement | None  # about compression

    def accept(self, stamp: bytes, subprotocol: str | None = None, headers: Sequence[tuple[str, str]] = ()) -> bytes:
        """Returns the response that accepts: what comes after it, in both directions, are frames.

        `stamp` is the Server and Date lines, `subprotocol` and `headers` are the application's.
        Raises `ResponseInvalid` for a subprotocol that was not offered, and for headers that are not the application's.
        """
        fields = check_fields(list(headers))
        for name, _ in headers:
            if name.lower().startswith("sec-websocket-"):
                raise ResponseInvalid(f"{name} is the server's")
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise ResponseInvalid(f"the client did not offer the subprotocol {subprotocol!r}")
        lines = [b"HTTP/1.1 101 Switching Protocols\r\n", fields.stamped(stamp), fields.text]
        lines.append(b"Upgrade: websocket\r\nConnection: Upgrade\r\n")
        lines.append(b"Sec-WebSocket-Accept: %b\r\n" % _accept_key(self.key))
        if subprotocol is not None:
            lines.append(b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode("ascii"))
        if self.agreement is not None:
            lines.append(b"Sec-WebSocket-Extensions: %b\r\n" % self.agreement.answer)
        return b"".join([*lines, b"\r\n"])


def _accept_key(key: bytes) -> bytes:
    digest = sha1(key + _GUID, usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False)


def asks_for_websocket(request: Request, fields: Fields) -> bool:
    """Whether the request is an opening handshake, good or bad.

    A server may ignore an Upgrade, and must do so in HTTP/1.0 (RFC 9110 section 7.8); with another method than GET the
    field means no WebSocket. Then the request is served as if it had no such field.
    """
    if request.method != "GET" or request.minor == 0:
        return False
    return any(name.lower() == b"upgrade" and "websocket" in _members(value) for name, value in fields)


def judge(request: Request, fields: Fields, deflate: Deflate | None) -> Handshake:
    """Returns the handshake of a request that `asks_for_websocket`. `deflate`: which compression the server would like.

    Raises `Refusal`: 400, or 426 for another version of the protocol.
    """
    found = joined(fields)
    if "upgrade" not in _members(found.get(b"connection", b"")):
        raise Refusal(400, "an opening handshake without Connection: Upgrade")
    if request.length:
        # What follows the head is a body, and frames come after it. A proxy may see that in another way.
        raise Refusal(400, "an opening handshake with a body")
    if found.get(b"sec-websocket-version") != b"13":
        raise Refusal(426, "the version of the WebSocket protocol is not 13")
    key = found.get(b"sec-websocket-key", b"")
    if not _KEY.fullmatch(key):
        raise Refusal(400, "the key of an opening handshake is not sixteen bytes in base64")
    subprotocols = _subprotocols(found.get(b"sec-websocket-protocol", b""))
    offers = read_offers(found.get(b"sec-websocket-extensions", b"").decode("latin-1"))
    return Handshake(key, subprotocols, agree(offers, deflate))


def _members(value: bytes) -> set[str]:
    """Returns the members of a list of options, in small letters."""
    return {member.strip(_OWS) for member in value.decode("latin-1").lower().split(",")}


def _subprotocols(value: bytes) -> tuple[str, ...]:
    names = [name.strip(_OWS) for name in value.decode("latin-1").split(",")]
    found = tuple(name for name in names if name)  # members of a list may be empty (RFC 9110 section 5.6.1)
    if not all(map(TOKEN.fullmatch, found)):
        raise Refusal(400, "malformed Sec-WebSocket-Protocol")
    return found
