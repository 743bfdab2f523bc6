"""What several tests share: a claim becomes true, or stays true. Not a place for fixtures (see conftest.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(claim: Callable[[], T], within: float = 10.0, every: float = 0.01) -> T:
    """The first truthy value of `claim()`; `AssertionError` with its last value when `within` seconds have passed."""
    deadline = time.monotonic() + within
    while True:
        value = claim()
        if value:
            return value
        if time.monotonic() >= deadline:
            msg = f"still {value!r} after {within} s"
            raise AssertionError(msg)
        time.sleep(every)


def stays(claim: Callable[[], object], seconds: float, every: float = 0.01) -> bool:
    """True if the claim is true all along: for what must not happen, looked at until the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not claim():
            return False
        time.sleep(every)
    return bool(claim())
