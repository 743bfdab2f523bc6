"""How the interpreter spells the stacks of its threads (faulthandler), and a worker those of its tasks, read into maps.

Collects no stacks and prints none: text in, maps out. Pure.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["threads_of"]

_HEAD = re.compile(r"(Current thread|Thread|Task) (0x[0-9a-f]+)(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


def threads_of(text: str) -> list[dict[str, Any]]:
    """Reads the threads in faulthandler's text: maps of id, name, and frames (file, line, function), innermost first.
    A map of tasks of an event loop has "tasks" for its id, and the names of all that have this stack.

    A line that is no frame – "  ..." where a stack was cut, "<no Python frame>" – becomes a frame without a file. The
    application may have written the text: any text is accepted.
    """
    threads: list[dict[str, Any]] = []
    for line in text.splitlines():
        head = _HEAD.fullmatch(line)
        if head:
            identity = "tasks" if head[1] == "Task" else head[2]
            threads.append({"id": identity, "name": head[3] or "", "frames": []})
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
