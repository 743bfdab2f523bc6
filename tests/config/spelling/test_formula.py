"""Claims about `srvd.config.spelling.formula`: what a number of workers may be calculated from."""

from __future__ import annotations

import pytest

from srvd.config.spelling.formula import evaluate


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("auto", 9), ("AUTO", 9), ("7", 7), ("cpus", 4), ("2 * cpus + 1", 9), ("cpus*2+1", 9), ("1 + 2*cpus", 9),
        ("2 * (cpus + 1)", 10), ("cpus / 3", 1), ("cpus // 3 * 2", 2), ("cpus - 1 - 1", 2), ("0.5 * cpus", 2),
        ("min(cpus, 3)", 3), ("max(2, min(2 * cpus + 1, 8))", 8), ("int(1.5 * cpus + 0.9)", 6), ]
,
)  # fmt: skip
def test_a_formula_gives_a_number(text: str, number: int) -> None:
    assert evaluate(text, 4) == number


@pytest.mark.parametrize(
    "text",
    ["", "cpu", "2 *", "(cpus", "cpus)", "2 cpus", "cpus ** 2", "1 / 0", "max()", "max(6)", "min cpus", "-1",
     "__import__", "1;2", "cpus.real", "(" * 150, "1" * 201, "é"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|early|calculated|at most"):
        evaluate(text, 4)
