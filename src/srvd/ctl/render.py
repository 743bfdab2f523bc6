"""Writes text for people – escaped, aligned, coloured on a terminal – and JSON for programs.

Knows no command: `views.py` chooses what to print of each result.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click

__all__ = [
    "ago",
    "clock",
    "date",
    "escape",
    "instance",
    "is_terminal",
    "marked",
    "number",
    "put",
    "put_json",
    "seconds",
    "size",
    "table",
]

# C0, DEL and C1 steer terminals; the others change the direction of text, and could disguise what a line says.
_STEERING = [*range(0x20), *range(0x7F, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in (*_STEERING, 0x2028, 0x2029)}
_ESCAPES[0x0A] = "\\n"
_ESCAPES[0x09] = "\\t"
_LINES = {code: text for code, text in _ESCAPES.items() if code not in (0x0A, 0x09)}

_COLOURS = {
    **dict.fromkeys(("ready", "serving", "done", "running"), "green"),
    **dict.fromkeys(("starting", "degraded", "paused", "stopping", "queued"), "yellow"),
    **dict.fromkeys(("booting", "standby", "opening", "draining", "committing"), "yellow"),
    **dict.fromkeys(("crashing", "failed", "rolled_back", "cancelled", "killed"), "red"),
}  # fmt: skip

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def escape(text: object, *, lines: bool = False) -> str:
    """Escapes characters that steer a terminal; with `lines`, line breaks and tabs stay."""
    return str(text).translate(_LINES if lines else _ESCAPES)


def instance(name: object) -> str:
    """Returns how a daemon is called in a sentence: "srvd blog", or only "srvd" for one with the default name."""
    return "srvd" if name == "srvd" else f"srvd {escape(name)}"


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def put(text: str = "", *, err: bool = False) -> None:
    """Prints one line on stdout (or stderr), in colour on a terminal unless NO_COLOR is set (no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    click.echo(text, err=err, color=is_terminal(stream) and not os.environ.get("NO_COLOR"))


def put_json(value: Mapping[str, Any], *, err: bool = False, compact: bool = False) -> None:
    """Prints JSON, indented on a terminal, else as one line. All of it is ASCII: nothing in it steers a terminal."""
    indent = None if compact or not (sys.stderr if err else sys.stdout).isatty() else 2
    click.echo(json.dumps(value, indent=indent), err=err)


def marked(state: object) -> str:
    """Returns a state in its colour."""
    colour = _COLOURS.get(str(state))
    return click.style(escape(state), fg=colour) if colour else escape(state)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], numbers: str = "") -> None:
    """Prints rows in columns under their heads, also without a terminal: `watch` and `less` are read by people, too.

    numbers: heads, separated by blanks, of columns that are aligned to the right.
    """
    cells = [[escape(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [head in numbers.split() for head in heads]
    put(click.style(_aligned(heads, widths, right), bold=True))
    for row in cells:
        line = _aligned(row, widths, right)
        for cell in row:
            if cell in _COLOURS:  # after aligning: a colour has no width
                line = line.replace(cell, marked(cell), 1)
                break
        put(line)


def _aligned(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = (cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(row, widths, right, strict=True))
    return "  ".join(cells).rstrip()


def seconds(value: float) -> str:
    """Writes a length of time in at most two units: 41 ms, 1.4 s, 12 s, 2 h 5 min."""
    if value < 1:
        return f"{max(1, value * 1000) if value > 0 else 0:.0f} ms"
    if value < 10:
        return f"{value:.1f} s"
    for unit, part, name, part_name in (
        (_DAY, _HOUR, "d", "h"),
        (_HOUR, _MINUTE, "h", "min"),
        (_MINUTE, 1, "min", "s"),
    ):
        if value >= unit:
            rest = int(value % unit) // part
            return f"{int(value) // unit} {name}" + (f" {rest} {part_name}" if rest else "")
    return f"{value:.0f} s"


def size(value: float) -> str:
    """Writes a number of bytes: 21.0 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def number(value: object) -> str:
    """Writes a count; "-" when it is not known."""
    return str(value) if isinstance(value, int) else "-"


def clock(at: float) -> str:
    """Writes a time of day, with its date unless that is today."""
    there, now = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if there[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", there)


def date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def ago(at: float, now: float) -> str:
    return f"{seconds(max(0.0, now - at))} ago"
