"""Extensions of ASGI's HTTP messages: files as bodies (pathsend, zerocopysend), early hints, and trailers.

Sends nothing: an `HttpCycle` does.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Any

from srvd.http.h1.response import ResponseInvalid, check_fields
from srvd.worker.net.file_span import Span

__all__ = ["FILES", "HINT", "PATH", "TRAILERS", "ZERO_COPY", "hint_of", "span_of", "trailers_of"]

PATH = "http.response.pathsend"
ZERO_COPY = "http.response.zerocopysend"
FILES = (PATH, ZERO_COPY)
HINT = "http.response.early_hint"
TRAILERS = "http.response.trailers"
# RFC 9110 section 6.5.1: fields by which a recipient frames, routes or understands the message.
_NO_TRAILERS = re.compile(
    rb"^(authorization|cache-control|content-(encoding|range|type)|host|set-cookie|www-authenticate):",
    re.IGNORECASE | re.MULTILINE,
)


def hint_of(message: Mapping[str, Any]) -> bytes:
    """Returns the interim response 103 (RFC 8297) with the links of the message. Raises `ResponseInvalid`."""
    try:
        fields = [("Link", bytes.decode(link, "latin-1")) for link in message.get("links", ())]
    except TypeError as exc:
        raise ResponseInvalid(f"links are no list of bytes: {exc}") from exc
    return b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % check_fields(fields).text


def trailers_of(message: Mapping[str, Any]) -> bytes:
    """Returns the fields of http.response.trailers as they go on the wire. Raises `ResponseInvalid`."""
    try:
        pairs = [(bytes.decode(name, "latin-1"), bytes.decode(value, "latin-1")) for name, value in message["headers"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise ResponseInvalid(f"headers are no list of (bytes, bytes): {exc!r}") from exc
    fields = check_fields(pairs)
    forbidden = _NO_TRAILERS.search(fields.text)
    if forbidden or fields.length >= 0 or fields.dropped:
        name = forbidden[1].decode() if forbidden else fields.dropped[0] if fields.dropped else "content-length"
        raise ResponseInvalid(f"{name} cannot be a trailer")
    return fields.text


def span_of(message: Mapping[str, Any]) -> Span:
    """Returns the part of a file that a message is about; the caller owns the descriptor. Raises `ResponseInvalid`,
    `OSError`.
    """
    return _opened(message) if message["type"] == PATH else _duplicated(message)


def _duplicated(message: Mapping[str, Any]) -> Span:
    """Of zerocopysend. Without an offset the part begins where the file stands, which then stands behind the part."""
    file: Any = message.get("file")
    fd = file.fileno() if hasattr(file, "fileno") else file
    if not isinstance(fd, int) or not stat.S_ISREG(os.fstat(fd).st_mode):
        raise ResponseInvalid(f"{file!r} is no regular file")
    size, offset, count = os.fstat(fd).st_size, message.get("offset"), message.get("count")
    at = os.lseek(fd, 0, os.SEEK_CUR) if offset is None else offset
    length = max(size - at, 0) if count is None else count
    if at < 0 or not 0 <= length <= max(size - at, 0):
        raise ResponseInvalid(f"the file has {size} bytes; offset {at} and count {length} are not within")
    if offset is None:
        os.lseek(fd, at + length, os.SEEK_SET)
    return Span(os.dup(fd), at, length)


def _opened(message: Mapping[str, Any]) -> Span:
    """Of pathsend: the whole file."""
    path = message.get("path")
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ResponseInvalid(f"{path!r} is no absolute path")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise ResponseInvalid(f"{path!r} is no regular file")
    return Span(fd, 0, found.st_size)
