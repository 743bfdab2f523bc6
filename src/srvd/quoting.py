"""Words of an application within a sentence of srvd's: in quotes of their own, so that a viewer is told the sentence
without them.

Imported at each start of `srvctl`: needs nothing. Pure.
"""

from __future__ import annotations

__all__ = ["MARK", "quoted", "without_quotes"]

_BEGIN, _END = "\u201c", "\u201d"

MARK = _BEGIN.encode()
"""Is in the bytes of each text that quotes words."""


def quoted(text: str) -> str:
    """The words as a part of a sentence. Quotes of the same kind in them become plain ones."""
    plain = text.replace(_BEGIN, '"').replace(_END, '"')
    return f"{_BEGIN}{plain}{_END}"


def without_quotes(text: str, instead: str) -> str:
    """The sentence with `instead` for all between its first quote and its last, or its end if that was cut off."""
    head, begins, rest = text.partition(_BEGIN)
    if not begins:
        return text
    _, ends, tail = rest.rpartition(_END)
    return f"{head}{instead}{tail if ends else ''}"
