"""Text for people: escaped, aligned, coloured where a terminal is; and JSON for programs.

Knows no command: `views.py` says what is shown of which result.
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

# C0, DEL and C1 steer terminals; the others turn the direction of text, which makes a line say what it does not.
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
    """The text without anything that steers a terminal; with `lines`, its line breaks and tabs stay."""
    return str(text).translate(_LINES if lines else _ESCAPES)


def instance(name: object) -> str:
    """A daemon among others: "srvd blog"; the one without a name of its own is called "srvd" already."""
    return "srvd" if name == "srvd" else f"srvd {escape(name)}"


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def put(text: str = "", *, err: bool = False) -> None:
    """One line on stdout (or stderr); colours only reach a terminal, and not if NO_COLOR is set (no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    click.echo(text, err=err, color=is_terminal(stream) and not os.environ.get("NO_COLOR"))


def put_json(value: Mapping[str, Any], *, err: bool = False, compact: bool = False) -> None:
    """One JSON text; indented for a person who looks at it, one line for a program. ASCII: nothing steers anything."""
    indent = None if compact or not (sys.stderr if err else sys.stdout).isatty() else 2
    click.echo(json.dumps(value, indent=indent), err=err)


def marked(state: object) -> str:
    """A state in its colour."""
    colour = _COLOURS.get(str(state))
    return click.style(escape(state), fg=colour) if colour else escape(state)


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], numbers: str = "") -> None:
    """Print rows under their heads, in columns also where no terminal is: `watch`, `ssh` and `less` show them to
    people. Programs ask for JSON.

    `numbers`: heads, with blanks between them, of columns that are aligned to the right.
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
    """A length of time, two units at most: 41 ms, 1.4 s, 12 s, 2 h 5 min."""
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
    """Bytes, as 21.0 MiB."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def number(value: object) -> str:
    """A count; "-" when it is not known."""
    return str(value) if isinstance(value, int) else "-"


def clock(at: float) -> str:
    """The time of day; with its date if that is not today's."""
    there, now = time.localtime(at), time.localtime()
    return time.strftime("%H:%M:%S" if there[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", there)


def date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def ago(at: float, now: float) -> str:
    return f"{seconds(max(0.0, now - at))} ago"
