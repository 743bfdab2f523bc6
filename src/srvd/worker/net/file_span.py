"""A part of an open file, to be sent.

Sends nothing: `send_queue.py` does.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Span"]


class Span(NamedTuple):
    """Bytes of an open file."""

    fd: int
    offset: int
    length: int
