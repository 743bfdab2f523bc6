"""The sizes that one request may have, and what else can be set about it. llhttp has no limit of any kind, so every one
of them is kept by us.

Not times: those belong to the process that owns the socket.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Limits"]


class Limits(NamedTuple):
    """All in bytes, but for `fields`. What is over them is refused with the status named beside it."""

    head: int = 65_536  # request line and fields together: 431
    line: int = 16_384  # the request target: 414
    field: int = 16_384  # one field line: 431
    fields: int = 100  # how many field lines: 431
    body: int = 1 << 30  # the decoded body, 0 for no limit: 413
    trailers: int = 16_384  # the trailer section: 431
    chunk_line: int = 4_096  # a chunk's size and extensions: 400
    chunk_overhead: int = 65_536  # all chunk lines together, beyond half of the data they frame: 400
    underscores: bool = True
    """A field whose name has an underscore is dropped; False: its request is refused with 400."""
