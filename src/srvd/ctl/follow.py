"""Shows the progress of an operation on stderr, if that is a terminal.

`commands.py` prints the result.
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
    """One line for each phase; the current line is rewritten at each step, and at the phase's end with its duration."""

    __slots__ = ("_began", "_last", "_live")

    def __init__(self, *, quiet: bool) -> None:
        self._live = not quiet and is_terminal(sys.stderr)
        self._began = 0.0
        self._last: Mapping[str, Any] | None = None  # the progress on the current line, which has no line break yet

    def show(self, progress: Mapping[str, Any]) -> None:
        if not self._live:
            return
        if self._last is not None and progress["phase"] != self._last["phase"]:
            self.end(done=True)  # a phase begins when the one before is done
        if self._last is None:
            self._began = time.monotonic()
        else:
            sys.stderr.write(_CLEAR)
        self._last = progress
        sys.stderr.write(_line(progress, _columns()))
        sys.stderr.flush()

    def end(self, *, done: bool) -> None:
        """Ends the last line, with a full bar and the duration if the phase was `done`, else as it is."""
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
    return " ".join(parts).rstrip()[: columns - 1]  # a line that wraps cannot be rewritten


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
