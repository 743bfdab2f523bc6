"""Finds the known word that a misspelt word was probably meant to be.

Knows no setting and no command.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["nearest"]


def nearest(word: str, words: Iterable[str]) -> str:
    """Returns the one of `words` that `word` was probably meant to be; "" when none is near."""
    allowed = max(1, len(word) // 3)
    best = min(((_distance(word.lower(), other.lower()), other) for other in words), default=(allowed + 1, ""))
    return best[1] if best[0] <= allowed else ""


def _distance(one: str, two: str) -> int:
    """Counts insertions, deletions, replacements and swaps of neighbours from one word to the other."""
    before: list[int] = []
    row = list(range(len(two) + 1))
    for i, char in enumerate(one, start=1):
        before, last, row = row, before, [i]
        for j, other in enumerate(two, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (char != other))
            if i > 1 and j > 1 and char == two[j - 2] and one[i - 2] == other:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
    return row[-1]
