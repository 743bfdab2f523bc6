"""Quotes words of an application in sentences of srvd, so that they can be removed when a viewer is sent the sentence.

Imported at each start of `srvctl`, and imports nothing. Pure.
"""

from __future__ import annotations

__all__ = ["MARK", "quoted", "without_quotes"]

_BEGIN, _END = "\u201c", "\u201d"

MARK = _BEGIN.encode()
"""Bytes that each text with quoted words contains."""


def quoted(text: str) -> str:
    """Quotes words for a sentence. Quotes of the same kind in them become plain ones."""
    plain = text.replace(_BEGIN, '"').replace(_END, '"')
    return f"{_BEGIN}{plain}{_END}"


def without_quotes(text: str, instead: str) -> str:
    """Replaces all between the first quote and the last (or the end, if that was cut off) by `instead`."""
    head, begins, rest = text.partition(_BEGIN)
    if not begins:
        return text
    _, ends, tail = rest.rpartition(_END)
    return f"{head}{instead}{tail if ends else ''}"
