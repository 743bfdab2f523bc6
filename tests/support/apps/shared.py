"""What the applications of the three frameworks have in common: the same answers, told in each framework's own way.

No framework is imported here, and nothing of srvd.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from wsgiref.validate import validator

BLOCK = 65_536
SECRET = "words that belong into the log only"
STATIC = Path("static")
"""In the daemon's folder, where the applications run."""
GO = Path("go")
"""`in_two_steps` waits for this file."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def block(number: int) -> bytes:
    """Each block of a download is different."""
    return number.to_bytes(8, "big") * (BLOCK // 8)


def blocks(count: int) -> Iterator[bytes]:
    return map(block, range(count))


def in_two_steps() -> Iterator[bytes]:
    """The second is not made before the client has shown that it has the first."""
    yield b"first "
    while not GO.exists():
        time.sleep(0.01)
    yield b"second"


def cut_short() -> Iterator[bytes]:
    yield b"half of it"
    raise RuntimeError(SECRET)


def digest(stream: Readable) -> dict[str, Any]:
    """Size and SHA-256 of all there is to read."""
    found = hashlib.sha256()
    size = 0
    while data := stream.read(BLOCK):
        found.update(data)
        size += len(data)
    return {"size": size, "sha256": found.hexdigest()}


def served(app: Any) -> Application:
    """The application; if VALIDATE is set, in the standard library's validator: it fails whatever breaks PEP 3333."""
    return validator(_Reading(app)) if os.environ.get("VALIDATE") else app


class _Reading:
    """The validator insists on `read(size)`. Where the body is known to end (wsgi.input_terminated), `read()` is good,
    and used.
    """

    def __init__(self, app: Application) -> None:
        self.app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self.app(environ | {"wsgi.input": _Input(environ["wsgi.input"])}, start_response)


class _Input:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        return data

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._stream.readline(size)
        return line
