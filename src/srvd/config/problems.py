"""What is wrong with a configuration, as facts and as sentences.

Finds nothing itself: `load.py` and `check.py` do. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from srvd.errors import ConfigInvalid
from srvd.record import Record

__all__ = ["Problem", "raise_for", "spell"]


class Problem(Record):
    """One problem. `where`: "FILE:LINE", "environment NAME", "flag --NAME" or "default"; `near`: a value that fits."""

    where: str
    key: str
    text: str
    near: str = ""

    @classmethod
    def unfit(cls, where: str, key: str, found: object, expected: str, near: str = "") -> Problem:
        return cls(where, key, f"found {spell(found)}, expected {expected}", near)

    def __str__(self) -> str:
        near = f"; did you mean {self.near}?" if self.near else ""
        return f"{self.where}: {self.key}: {self.text}{near}"


def spell(value: object) -> str:
    """Writes a value as the file has it, cut to 60 characters."""
    if isinstance(value, str):
        text = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        text = "a number of more than 64 bits"  # str() refuses to spell some of them
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(spell(item) for item in value) + "]"
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def raise_for(problems: Sequence[Problem]) -> None:
    """Raises `ConfigInvalid` with all problems; returns when there are none."""
    if not problems:
        return
    problems = sorted(problems, key=_place)
    lines = [str(problem) for problem in problems]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    raise ConfigInvalid(
        f"the configuration has {count}; nothing was changed\n" + "\n".join(lines),
        hint="`srvd help settings` lists every setting, `srvd config` shows the values in force",
        detail={"problems": [problem._asdict() for problem in problems]},
    )


def _place(problem: Problem) -> tuple[bool, int]:
    """Sorts the file's problems first, by line."""
    file, _, line = problem.where.rpartition(":")
    return not file, int(line) if line.isdigit() else 0
