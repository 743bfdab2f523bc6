"""Extensions of ASGI's HTTP messages: a file as the body (pathsend), and early hints.

Sends nothing: an `HttpCycle` does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from srvd.http.h1.response import ResponseInvalid, check_fields
from srvd.worker.net.file_span import Span

__all__ = ["HINT", "PATH", "hint_of", "span_of"]

PATH = "http.response.pathsend"
HINT = "http.response.early_hint"


def hint_of(message: Mapping[str, Any]) -> bytes:
    """Returns the interim response 103 (RFC 8297) with the links of the message. Raises `ResponseInvalid`."""
    try:
        fields = [("Link", bytes.decode(link, "latin-1")) for link in message.get("links", ())]
    except TypeError as exc:
        raise ResponseInvalid(f"links are no list of bytes: {exc}") from exc
    return b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % check_fields(fields).text


def span_of(message: Mapping[str, Any]) -> Span:
    """Opens the file that a message names; the caller owns the descriptor. Raises `ResponseInvalid`, `OSError`."""
    path = message.get("path")
    if not isinstance(path, str) or not os.path.isabs(path):
        raise ResponseInvalid(f"{path!r} is no absolute path")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise ResponseInvalid(f"{path!r} is no regular file")
    return Span(fd, 0, found.st_size)
