"""A long test in shares: some of it in every run, all of it in a long one. See the markers in pyproject.toml."""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet


def shares(count: int, slow: int) -> list[ParameterSet]:
    """Shares of a long test, as parameters: the first is for every run, the next few are slow, the others long."""
    return [
        pytest.param(share, marks=() if share == 0 else pytest.mark.slow if share <= slow else pytest.mark.long)
        for share in range(count)
    ]
