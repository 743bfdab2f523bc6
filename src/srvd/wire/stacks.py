"""How the interpreter spells the stacks of its threads (faulthandler), read into maps.

Collects no stacks and prints none: text in, maps out. Pure.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["threads_of"]

_HEAD = re.compile(r"(?:Current thread|Thread) (0x[0-9a-f]+)(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


def threads_of(text: str) -> list[dict[str, Any]]:
    """Reads the threads in faulthandler's text: maps of id, name, and frames (file, line, function), innermost first.

    A line that is no frame – "  ..." where a stack was cut, "<no Python frame>" – becomes a frame without a file. The
    application may have written the text: any text is accepted.
    """
    threads: list[dict[str, Any]] = []
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head:
            threads.append({"id": head[1], "name": head[2] or "", "frames": []})
        elif line.strip():
            if not threads:
                threads.append({"id": "", "name": "", "frames": []})
            threads[-1]["frames"].append(_frame(line))
    return threads


def _frame(line: str) -> dict[str, Any]:
    found = _FRAME.fullmatch(line)
    if not found:
        return {"file": "", "line": 0, "function": line.strip()}
    number = int(found[2]) if found[2].isdecimal() and len(found[2]) < 10 else 0
    return {"file": found[1], "line": number, "function": found[3]}
