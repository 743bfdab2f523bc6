"""What an import has to say: findings by category, and the exit code that follows from them.

Finds nothing itself. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from srvd.record import Record

__all__ = ["CATEGORIES", "Finding", "as_map", "as_text", "exit_code"]

CATEGORIES: Final[Mapping[str, str]] = {
    "refused": "srvd cannot run this",
    "lost": "srvd has nothing like it",
    "changed": "carried over, and not quite the same",
    "dead": "without effect in the source already",
    "needless": "srvd does not need it",
    "asked for": "only you know this",
    "next": "what to do now",
}
"""The categories, in the order of the report, and what each means."""

_SERIOUS: Final = ("lost", "changed", "asked for")
"""Categories with which an import ends with 10: the result has to be looked at."""


class Finding(Record):
    """One line of the report. where: "FILE:LINE", "FILE" or "" for what has no place."""

    category: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.category}: {f'{self.where}: ' if self.where else ''}{self.text}"


def as_text(findings: Iterable[Finding]) -> str:
    """Returns the report: one line for each finding, in the order of `CATEGORIES`."""
    return "".join(f"{one}\n" for one in _sorted(findings))


def as_map(findings: Iterable[Finding], files: Mapping[str, str], code: int) -> dict[str, object]:
    """Returns the same for programs, with the texts of the files, by name."""
    return {"schema": 1, "exit": code, "files": dict(files), "findings": [one._asdict() for one in _sorted(findings)]}


def exit_code(findings: Sequence[Finding]) -> int:
    """Returns 1 if srvd cannot run this, 10 if there is something to look at, else 0."""
    found = {one.category for one in findings}
    if "refused" in found:
        return 1
    return 10 if found.intersection(_SERIOUS) else 0


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    order = list(CATEGORIES)
    return sorted(dict.fromkeys(findings), key=lambda one: order.index(one.category))
