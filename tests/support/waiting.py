"""What several tests share: a claim becomes true, or stays true. Not a place for fixtures (see conftest.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SELDOM = 0.05
"""Seconds between two looks of a test that has waited for half a second."""


def wait_for(claim: Callable[[], T], within: float = 30.0, every: float = 0.01) -> T:
    """The first truthy value of `claim()`; `AssertionError` with its last value when `within` seconds have passed.

    every: seconds from one look to the next, growing to `SELDOM`. A look mostly asks a daemon, which costs both of them
        a millisecond or two: of a hundred looks a second, by six tests side by side, no time is left for the rest.
    """
    deadline = time.monotonic() + within
    most = max(every, SELDOM)
    while True:
        value = claim()
        if value:
            return value
        if time.monotonic() >= deadline:
            msg = f"still {value!r} after {within} s"
            raise AssertionError(msg)
        time.sleep(every)
        every = min(every * 1.1, most)


def stays(claim: Callable[[], object], seconds: float, every: float = 0.03) -> bool:
    """True if the claim is true all along: for what must not happen, looked at until the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not claim():
            return False
        time.sleep(every)
    return bool(claim())
