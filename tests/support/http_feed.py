"""Feeds the pure HTTP core in three ways – whole, byte by byte, in given pieces – and says what came out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from srvd.http.h1.head import HeadReader, Request
from srvd.http.h1.limits import Limits
from srvd.http.h1.reader import Inbound
from srvd.http.h1.refusal import Refusal
from srvd.worker.wsgi.environ import EnvironSink

SINK = EnvironSink("web/1#1", multithread=False)
TEMPLATE: dict[str, Any] = {"wsgi.url_scheme": "http", "SCRIPT_NAME": ""}


class Message(NamedTuple):
    """One request that came out whole."""

    label: str  # method and target, as received
    environ: dict[str, Any]
    body: bytes
    keep_alive: bool
    trailers: list[tuple[bytes, bytes]]


class Outcome(NamedTuple):
    messages: list[Message]
    refused: int  # the status, 0 if nothing was refused
    pending: bool  # a part of a request is still here


def reader(limits: Limits | None = None) -> HeadReader:
    """A reader of heads whose requests have environs."""
    return HeadReader(limits or Limits(), SINK)


def feed(pieces: Iterable[bytes], limits: Limits | None = None, heads: HeadReader | None = None) -> Outcome:
    """As a connection does it: after a message that closes, and after a refusal, nothing more is read."""
    inbound = Inbound(heads or reader(limits), TEMPLATE)
    messages: list[Message] = []
    body = bytearray()
    try:
        for piece in pieces:
            data = piece
            while True:
                if inbound.request is None:
                    request = inbound.receive(data)
                    data = b""
                    if request is None:
                        break
                    if inbound.body is None:
                        messages.append(_message(request, request.whole, []))
                        if not request.keep_alive:
                            return Outcome(messages, 0, False)
                        continue
                assert inbound.request is not None
                assert inbound.body is not None
                body += b"".join(inbound.read_body(data))
                data = b""
                if not inbound.body.complete:
                    break
                request, trailers = inbound.request, inbound.body.trailers
                inbound.end_body()
                messages.append(_message(request, bytes(body), trailers))
                body.clear()
                if not request.keep_alive:
                    return Outcome(messages, 0, False)
    except Refusal as refusal:
        return Outcome(messages, refusal.status, False)
    return Outcome(messages, 0, inbound.begun or inbound.request is not None)


def _message(request: Request, body: bytes, trailers: list[tuple[bytes, bytes]]) -> Message:
    environ = request.scope
    return Message(f"{request.method} {environ['RAW_URI']}", environ, body, request.keep_alive, trailers)


def whole(data: bytes, limits: Limits | None = None) -> Outcome:
    return feed([data], limits)


def bytewise(data: bytes, limits: Limits | None = None) -> Outcome:
    return feed((data[at : at + 1] for at in range(len(data))), limits)


def request(*fields: str, line: str = "GET / HTTP/1.1", host: str | None = "a", body: bytes = b"") -> bytes:
    """The bytes of a request; fields may hold any character of latin-1."""
    lines = [line, *([f"Host: {host}"] if host is not None else []), *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
