"""When the answers of a new generation are worse than those of the former one: the rule alone."""

from __future__ import annotations

import random

import pytest

from srvd.core.model import Answers
from srvd.core.operations.baking import is_worse

POINTS = 5


@pytest.mark.parametrize(
    ("new", "former", "worse"),
    [
        ((10, 10), (2000, 0), True),
        ((12, 12), (30, 0), True),
        ((9, 9), (2000, 0), False),  # too few failures, whatever their share
        ((600, 60), (2000, 0), True),  # one page in ten
        ((600, 20), (2000, 0), False),  # one in thirty: within the points
        ((100, 100), (1000, 900), False),  # it was as bad before
        ((1000, 1000), (1000, 500), True),  # it was bad, and is worse
        ((50, 50), (0, 0), False),  # nothing to compare with
        ((20, 15), (3, 0), False),  # next to nothing
        ((0, 0), (2000, 0), False),
        ((2000, 0), (2000, 2000), False),
    ],
)
def test_the_examples_of_the_page_are_judged_as_it_says(
    new: tuple[int, int], former: tuple[int, int], worse: bool
) -> None:
    assert is_worse(Answers(*new), Answers(*former), POINTS) is worse


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9])
def test_generations_that_are_alike_are_told_apart_by_chance_next_to_never(share: float) -> None:
    chance = random.Random(5)
    wrong = 0
    for _ in range(2000):
        new, former = (
            Answers(total, sum(chance.random() < share for _ in range(total)))
            for total in (chance.randrange(10, 200), chance.randrange(1, 200))
        )
        wrong += is_worse(new, former, 1)
    assert wrong <= 1


def test_more_points_are_more_patient() -> None:
    new, former = Answers(1000, 200), Answers(1000, 0)
    assert [is_worse(new, former, points) for points in (1, 5, 15, 20, 50)] == [True, True, True, False, False]
