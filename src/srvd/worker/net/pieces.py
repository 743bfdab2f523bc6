"""Bytes of a body that come in pieces of all sizes and are kept: short ones are joined.

An object costs as much as some dozens of bytes; one for each short piece would cost more than the piece.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from typing import Any

__all__ = ["SHORT", "append_short"]

SHORT = 4096
"""Bytes of a piece that is joined to the one before, at most."""

_JOINED = 65_536


def append_short(pieces: MutableSequence[Any], piece: bytes | bytearray | memoryview) -> None:
    """At the end of the last one, if that is a bytearray with room; else as a new bytearray."""
    last = pieces[-1] if pieces else None
    if isinstance(last, bytearray) and len(last) < _JOINED:
        last += piece
    else:
        pieces.append(bytearray(piece))
