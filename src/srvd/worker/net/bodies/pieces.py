"""Joins short pieces of a body that is kept in memory.

A Python object costs some dozens of bytes; an object for each short piece would cost more than the piece.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

__all__ = ["SHORT", "append_short"]

SHORT = 4096
"""The most bytes of a piece that is joined to the one before."""

_JOINED = 65_536


def append_short(pieces: MutableSequence[Any], piece: bytes | bytearray | memoryview) -> None:
    """Appends a short piece to the last one, if that is a bytearray with room; else adds a new bytearray."""
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray) and len(last) < _JOINED:
        last += piece
    else:
        pieces.append(bytearray(piece))
