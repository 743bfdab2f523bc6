"""What h11 makes of a stream of requests, told in the words of http_feed.py, so that the two can be compared.

h11 reads one request a connection here: what follows it is given to a new one. Two things are put right on the way,
and counted: h11 takes no empty line before a request, and keeps no connection of HTTP/1.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import h11

_ROOM = 1 << 20
"""Bytes that h11 may keep: sizes are not what is compared."""


class Message(NamedTuple):
    method: bytes
    target: bytes
    minor: bytes  # the version, "1.1"
    fields: list[tuple[bytes, bytes]]  # names in small letters
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    closes: bool
    start: int  # of the request in the stream
    end: int


class Reading(NamedTuple):
    messages: list[Message]
    end: str  # "refused", "pending", "closed", "idle"
    at: int  # where the request begins that was not read to its end
    why: str  # it was refused
    allowed: set[str]  # what was put right


def read(pieces: Iterable[bytes]) -> Reading:
    """Reads the stream that is cut into these pieces."""
    stream = list(pieces)
    data = b"".join(stream)
    messages: list[Message] = []
    allowed: set[str] = set()
    at = 0
    while True:
        while data.startswith(b"\r\n", at):
            at += 2
            allowed.add("an empty line before a request")
        if data[at:] in (b"", b"\r"):  # which can become an empty line
            return Reading(messages, "idle", at, "", allowed)
        try:
            message = _read_one(_from(stream, at), at)
        except h11.RemoteProtocolError as exc:
            return Reading(messages, "refused", at, str(exc), allowed)
        if message is None:
            return Reading(messages, "pending", at, "", allowed)
        messages.append(message)
        at = message.end
        if message.closes:
            if not is_kept_by_1_0(message):
                return Reading(messages, "closed", at, "", allowed)
            allowed.add("a connection of HTTP/1.0 that is kept")


def _from(pieces: list[bytes], at: int) -> Iterable[bytes]:
    for piece in pieces:
        if at < len(piece):
            yield piece[at:]
        at = max(at - len(piece), 0)


def _read_one(pieces: Iterable[bytes], start: int) -> Message | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_ROOM)
    request: h11.Request | None = None
    body = bytearray()
    fed = 0
    for piece in pieces:
        connection.receive_data(piece)
        fed += len(piece)
        while (event := connection.next_event()) is not h11.NEED_DATA:
            match event:
                case h11.Request():
                    request = event
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    assert request is not None
                    end = start + fed - len(connection.trailing_data[0])
                    trailers = list(event.headers)
                    return Message(
                        request.method, request.target, request.http_version, list(request.headers), bytes(body),
                        trailers, _closes(connection), start, end,
                    )  # fmt: skip
    return None


def _closes(connection: h11.Connection) -> bool:
    """h11 tells it once the request has been answered (not with 200: that would accept CONNECT)."""
    connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    return connection.our_state is h11.MUST_CLOSE or connection.their_state is h11.MUST_CLOSE


def is_kept_by_1_0(message: Message) -> bool:
    """RFC 9112 section 9.3: "keep-alive" keeps, "close" wins."""
    options = {
        option.strip().lower()
        for name, value in message.fields
        if name == b"connection"
        for option in value.split(b",")
    }
    return message.minor == b"1.0" and b"keep-alive" in options and b"close" not in options
