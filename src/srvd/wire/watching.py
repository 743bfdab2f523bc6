"""The messages between the processes of an application under development and the watcher: a line of JSON each.

The watcher listens at an abstract Unix socket that `paths.watcher_address` names. Spelling only. Pure.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["lines", "spell"]

LIMIT = 16 << 20
"""The longest line, in bytes: the files of a large application have a hundred thousand."""


def spell(message: dict[str, Any]) -> bytes:
    """Returns the line of a message. Names of files that are not UTF-8 stay the same."""
    return json.dumps(message).encode("utf-8", "surrogateescape") + b"\n"


def lines(buffer: bytearray) -> list[dict[str, Any]]:
    """Takes the whole lines out of a buffer, and returns their messages. Raises `ValueError` for anything else."""
    found = []
    while (end := buffer.find(b"\n")) >= 0:
        message = json.loads(bytes(buffer[:end]))
        del buffer[: end + 1]
        if not isinstance(message, dict):
            msg = "a message is an object"
            raise ValueError(msg)
        found.append(message)
    if len(buffer) > LIMIT:
        msg = "a line is too long"
        raise ValueError(msg)
    return found
