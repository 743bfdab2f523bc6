"""The traceback of an exception, as text, written as the interpreter itself writes it.

Not the `traceback` module: with `tokenize` and `linecache` it costs every start of a zygote 4 ms of import.
"""

from __future__ import annotations

import sys
from io import StringIO

__all__ = ["format_traceback"]


def format_traceback(exc: BaseException) -> str:
    """Everything from "Traceback (most recent call last)" to the last line, causes included; no newline at its end.

    The interpreter's hook writes to `sys.stderr`, which is ours while it does: what another thread says in that moment
    is found in the text.
    """
    text = StringIO()
    theirs, sys.stderr = sys.stderr, text
    try:
        sys.__excepthook__(type(exc), exc, exc.__traceback__)
    finally:
        sys.stderr = theirs
    return text.getvalue().rstrip("\n")
