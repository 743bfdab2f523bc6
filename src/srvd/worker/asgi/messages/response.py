"""Checks the messages that an application sends for a response, and writes its head.

Sends nothing. Pure, but for bounded memories of what was seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from srvd.http.h1.response import (
    BodyFraming,
    Fields,
    Framing,
    ResponseInvalid,
    Status,
    check_fields,
    check_status,
)

__all__ = ["Start", "body_of", "check_left", "kind_of", "start_of", "start_of_refusal"]

_MOST_SEEN = 256
_LONGEST_SEEN = 512


class Start(NamedTuple):
    """What the application said in http.response.start, checked."""

    status: Status
    fields: Fields
    is_stream: bool = False
    """Whether the body is a stream of server-sent events, which has no end of its own."""


_starts: dict[tuple[object, tuple[Any, ...]], Start] = {}
"""Good ones: an application says the same again and again."""


def kind_of(message: Any) -> str:
    """Returns the type of a message. Raises `ResponseInvalid`."""
    kind = message.get("type") if type(message) is dict or isinstance(message, Mapping) else None
    if not isinstance(kind, str):
        raise ResponseInvalid(f"{message!r} is no message: it has no type")
    return kind


def start_of(message: Mapping[str, Any]) -> Start:
    """Returns what http.response.start says. Raises `ResponseInvalid`."""
    code = message.get("status")
    try:
        given = tuple(message.get("headers", ()))
    except TypeError as exc:
        raise ResponseInvalid(f"headers are no list of (bytes, bytes): {exc}") from exc
    try:
        known = _starts.get((code, given))
    except TypeError:  # pairs that are lists: good enough, but they cannot be looked up
        return _start(code, given)
    if known is not None:
        return known
    start = _start(code, given)
    if len(start.fields.text) <= _LONGEST_SEEN:
        if len(_starts) >= _MOST_SEEN:
            _starts.clear()
        _starts[code, given] = start
    return start


def start_of_refusal(status: int) -> Start:
    """Returns what stands for the application's response when the server has answered in its place."""
    return _start(status, ())


def _start(code: object, given: tuple[Any, ...]) -> Start:
    status, fields = _status(code), _check(given)
    return Start(status, fields, b"text/event-stream" in fields.text.lower())


def _status(code: object) -> Status:
    if not isinstance(code, int) or not 200 <= code <= 599:
        raise ResponseInvalid(f"{code!r} is no status of a final response")
    code = int(code)  # HTTPStatus is an int, too
    try:
        phrase = HTTPStatus(code).phrase
    except ValueError:
        phrase = ""
    return check_status(f"{code} {phrase}")


def _check(headers: tuple[Any, ...]) -> Fields:
    try:
        pairs = [(bytes.decode(name, "latin-1"), bytes.decode(value, "latin-1")) for name, value in headers]
    except (TypeError, ValueError) as exc:
        raise ResponseInvalid(f"headers are no list of (bytes, bytes): {exc}") from exc
    return check_fields(pairs)


def body_of(message: Mapping[str, Any]) -> bytes:
    """Returns the body of http.response.body. Raises `ResponseInvalid`."""
    body = message.get("body", b"")
    if type(body) is bytes:
        return body
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise ResponseInvalid(f"the body is {type(body).__name__}, not bytes")


def check_left(framing: BodyFraming, size: int, *, more: bool) -> None:
    """Raises `ResponseInvalid` for a part of a body whose size does not fit what is left of its Content-Length."""
    if framing.kind is not Framing.LENGTH:
        return
    if size > framing.left:
        raise ResponseInvalid(f"the body is {size - framing.left} bytes longer than its Content-Length")
    if not more and size < framing.left:
        raise ResponseInvalid(f"the body is {framing.left - size} bytes shorter than its Content-Length")
