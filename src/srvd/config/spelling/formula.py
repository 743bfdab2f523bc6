"""Numbers that depend on the processors: `"2 * cpus + 1"`, `"min(cpus, 8)"`, `"auto"`.

Counts no processors: `linux/processes/cgroup.py` does. Pure.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["AUTO", "evaluate"]

AUTO: Final = "2 * cpus + 1"
"""What `"auto"` stands for: one worker calculates while another one waits, and one is spare."""

_LONGEST: Final = 200  # characters
_TOKEN: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?|[a-z]+|//|[-+*/(),])")
_SIGNS: Final[Mapping[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
}
_FUNCTIONS: Final[Mapping[str, Callable[..., float]]] = {"min": min, "max": max, "int": int}


def evaluate(text: str, cpus: int) -> int:
    """Returns the number that a formula gives with so many processors, rounded down. Raises `ValueError`."""
    formula = AUTO if text.strip().lower() == "auto" else text
    if len(formula) > _LONGEST:
        msg = f"a formula has at most {_LONGEST} characters"
        raise ValueError(msg)
    reader = _Reader(formula, cpus)
    try:
        number = reader.sum()
        if reader.next:
            reader.refuse()
        return math.floor(number)
    except (ArithmeticError, TypeError, RecursionError) as exc:
        msg = f"it cannot be calculated: {exc}"
        raise ValueError(msg) from exc


class _Reader:
    """Reads a formula by its grammar, one token ahead: sum = product (+ product)*, product = term (* term)*."""

    def __init__(self, text: str, cpus: int) -> None:
        self.tokens: list[str] = []
        self.cpus = cpus
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                self.tokens.append(text[at:].strip()[0])  # refused where it stands
                break
            self.tokens.append(found[1])
            at = found.end()

    @property
    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def refuse(self) -> None:
        msg = f"{self.next!r} was not expected" if self.next else "it ends too early"
        raise ValueError(msg)

    def take(self, expected: str = "") -> str:
        if not self.next or (expected and self.next != expected):
            self.refuse()
        return self.tokens.pop(0)

    def sum(self) -> float:
        return self._chain(self.product, ("+", "-"))

    def product(self) -> float:
        return self._chain(self.term, ("*", "/", "//"))

    def _chain(self, part: Callable[[], float], signs: tuple[str, ...]) -> float:
        number = part()
        while self.next in signs:
            number = _SIGNS[self.take()](number, part())
        return number

    def term(self) -> float:
        word = self.take()
        if word[0].isdecimal():
            return float(word) if "." in word else int(word)
        if word == "cpus":
            return self.cpus
        if word == "(":
            return self._closed(self.sum())
        if word in _FUNCTIONS:
            self.take("(")
            numbers = [self.sum()]
            while self.next == ",":
                self.take()
                numbers.append(self.sum())
            return self._closed(_FUNCTIONS[word](*numbers))
        self.tokens.insert(0, word)
        self.refuse()
        raise AssertionError

    def _closed(self, number: float) -> float:
        self.take(")")
        return number
