"""Separates child processes that the application forks from srvd: a child loses the descriptors of srvd, and ends when
it returns to code of srvd.

Costs neither the forking process nor a request any time: the work is done in the child, by `os.register_at_fork`.
Programs that the application executes need none of this: srvd's descriptors are close-on-exec.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import NoReturn

from srvd.log import Log

__all__ = ["disown", "guarded"]

_STDERR = 2


def disown(descriptors: Callable[[], Iterable[int]], kinds: Sequence[type]) -> None:
    """Makes children forked from now on release these descriptors, and end as soon as they call a method of these
    classes.

    Thus clients see the end of their connections, the port becomes free and the link ends although a child still runs.
    """
    _register(descriptors, lambda: _bar(kinds))


@contextmanager
def guarded(descriptors: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Does the same for children forked within this block, which end where the block ends."""
    over = False
    forked = False

    def fire() -> None:
        nonlocal forked
        forked = not over

    _register(lambda: () if over else descriptors(), fire)
    try:
        yield
    finally:
        over = True
        if forked:
            _end()


def _register(descriptors: Callable[[], Iterable[int]], then: Callable[[], None]) -> None:
    done = False

    def in_child() -> None:
        nonlocal done
        if not done:  # a grandchild has released them already, and may use the numbers itself
            done = True
            _let_go(descriptors())
            then()

    os.register_at_fork(after_in_child=in_child)


def _let_go(descriptors: Iterable[int]) -> None:
    """Releases descriptors by replacing each with an empty eventfd. Does not close them: inherited objects of the child
    would close the numbers again, when these may belong to files of the application.
    """
    nothing = os.eventfd(0, os.EFD_CLOEXEC)
    for fd in descriptors:
        if fd >= 0:
            os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


def _bar(kinds: Sequence[type]) -> None:
    """Replaces the methods of these classes by `_end`: every way back to srvd calls one of them."""
    for base in {base for kind in kinds for base in kind.__mro__}:
        for name, value in list(vars(base).items()):
            if type(value) is FunctionType and not name.startswith("__"):
                setattr(base, name, _end)


def _end(*_arguments: object, **_named: object) -> NoReturn:
    exc = sys.exception()
    Log(_STDERR).error(
        f"process {os.getpid()}, which the application forked, came back out of the application's code; it ends here: "
        "a child ends with os._exit()"
    )
    code = exc.code if isinstance(exc, SystemExit) else 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code if isinstance(code, int) else code is not None)
