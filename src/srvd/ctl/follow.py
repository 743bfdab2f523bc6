"""The progress of an operation, live on stderr while a person watches; silent otherwise.

Only shows: what the operation came to is printed by `commands.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from srvd.ctl.render import escape, is_terminal

__all__ = ["Follower"]

BAR = 24
"""Characters of a whole bar."""

_CLEAR = "\r\x1b[2K"


class Follower:
    """One line a phase; the line of the present phase is written anew with each step."""

    __slots__ = ("_live", "_phase", "_shown")

    def __init__(self, *, quiet: bool) -> None:
        self._live = not quiet and is_terminal(sys.stderr)
        self._phase = ""
        self._shown = False  # a line without its end is on the screen

    def show(self, progress: Mapping[str, Any]) -> None:
        if not self._live:
            return
        phase = str(progress["phase"])
        if self._shown:
            sys.stderr.write("\n" if phase != self._phase else _CLEAR)
        self._phase = phase
        sys.stderr.write(_line(progress, _columns()))
        sys.stderr.flush()
        self._shown = True

    def end(self) -> None:
        """Leave the last line as it is, and the cursor below it."""
        if self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._shown = False


def _line(progress: Mapping[str, Any], columns: int) -> str:
    done, total = int(progress["done"]), int(progress["total"])
    parts = [f"  {escape(progress['phase']):<10}"]
    if total > 0:
        filled = BAR * min(done, total) // total
        parts.append(f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{total}")
    parts.append(escape(progress["message"]))
    return " ".join(parts).rstrip()[: columns - 1]  # a line that wraps cannot be written anew


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
