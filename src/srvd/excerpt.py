"""Shortens a long traceback to the application's own frames and the exception that was raised last.

Reads the text that Python writes, and keeps other text around it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["excerpt"]

SHORT = 20
"""Texts of at most so many lines are not shortened."""

_HEAD = "Traceback (most recent call last):"
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
_FRAME = re.compile(r'  File "(.+)", line \d+, in ')
_FOREIGN = re.compile(r"/(?:site|dist)-packages/|/lib/python3[^/]*/|/srvd/(?:worker|zygote)/|^<frozen ")


def excerpt(text: str, whole: str = "-v") -> str:
    """Shortens the traceback in a text to frames of the application's files; of chained exceptions to the last one.

    Leaves out frames of installed packages, of the standard library and of srvd, but keeps the last frame if there is
    no other. The last line says how many lines are not shown, and that `whole` shows them.
    """
    lines = text.split("\n")
    if _HEAD not in lines or len(lines) <= SHORT:
        return text
    begin = lines.index(_HEAD)
    blocks = _blocks(lines[begin:])
    last = _frames(blocks[-1])
    frames, raised = last[:-1], last[-1]
    own = next((mine for block in reversed(blocks) if (mine := _own(_frames(block)[:-1]))), frames[-1:])
    shown = [*lines[:begin], _HEAD, *(line for frame in own for line in frame), *raised]
    left_out = len(lines) - len(shown)
    return "\n".join([*shown, f"({left_out} lines are not shown: {whole})"]) if left_out > 0 else text


def _blocks(lines: Sequence[str]) -> list[list[str]]:
    """Returns the lines of each exception of a chain, without the first line."""
    blocks: list[list[str]] = []
    for line in lines:
        if line == _HEAD:
            blocks.append([])
        elif line not in _CHAINED:
            blocks[-1].append(line)
    return blocks


def _frames(block: Sequence[str]) -> list[list[str]]:
    """Returns the lines of each frame; the last item is the exception, with the place of a syntax error."""
    frames: list[list[str]] = []
    rest: list[str] = []
    for line in block:
        if _FRAME.match(line):
            frames.append([line])
        elif frames and not rest and line.startswith("    "):
            frames[-1].append(line)
        else:
            rest.append(line)
    while rest and not rest[-1]:
        rest.pop()
    return [*frames, rest]


def _own(frames: Sequence[list[str]]) -> list[list[str]]:
    return [frame for frame in frames if (found := _FRAME.match(frame[0])) and not _FOREIGN.search(found[1])]
