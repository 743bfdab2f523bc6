"""The progress of an operation, live on stderr while a person watches; silent otherwise.

Only shows: what the operation came to is printed by `commands.py`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from srvd.ctl.render import escape, is_terminal, seconds

__all__ = ["Follower"]

BAR = 24
"""Characters of a whole bar."""

_CLEAR = "\r\x1b[2K"


class Follower:
    """One line a phase; the line of the present phase is written anew with each step, and at its end with its time."""

    __slots__ = ("_began", "_last", "_live")

    def __init__(self, *, quiet: bool) -> None:
        self._live = not quiet and is_terminal(sys.stderr)
        self._began = 0.0
        self._last: Mapping[str, Any] | None = None  # whose line is on the screen, without its end

    def show(self, progress: Mapping[str, Any]) -> None:
        if not self._live:
            return
        if self._last is not None and progress["phase"] != self._last["phase"]:
            self.end(done=True)  # the next phase begins when this one has come true
        if self._last is None:
            self._began = time.monotonic()
        else:
            sys.stderr.write(_CLEAR)
        self._last = progress
        sys.stderr.write(_line(progress, _columns()))
        sys.stderr.flush()

    def end(self, *, done: bool) -> None:
        """Leave the cursor below the last line: full and with its time if it was `done`, else as far as it came."""
        if self._last is None:
            return
        if done:
            total = self._last["total"]
            line = _line({**self._last, "done": total, "message": seconds(time.monotonic() - self._began)}, _columns())
            sys.stderr.write(f"{_CLEAR}{line}")
        sys.stderr.write("\n")
        sys.stderr.flush()
        self._last = None


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
