"""What becomes of a child that the application forks: it has nothing of srvd's, and ends when it comes back to srvd.

Costs the process that forks nothing, and a request nothing: the work is done in the child, by `os.register_at_fork`.
Not for programs that are executed: srvd's descriptors are close-on-exec.
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
    """From now on a forked child lets go of these descriptors, and ends as soon as it calls a method of these classes.

    So the client of a request gets its end of file, the port is free and the link ends, whatever a child still does.
    """
    _register(descriptors, lambda: _bar(kinds))


@contextmanager
def guarded(descriptors: Callable[[], Iterable[int]]) -> Iterator[None]:
    """The same for a child that is forked in this block: it ends where the block ends."""
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
        if not done:  # a grandchild has let go already: the numbers may be its own by now
            done = True
            _let_go(descriptors())
            then()

    os.register_at_fork(after_in_child=in_child)


def _let_go(descriptors: Iterable[int]) -> None:
    """Not by closing them: objects that the child has inherited would close their numbers again, and by then these may
    be the application's.
    """
    nothing = os.eventfd(0, os.EFD_CLOEXEC)
    for fd in descriptors:
        if fd >= 0:
            os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)


def _bar(kinds: Sequence[type]) -> None:
    """Whatever the application does to come back, a method of these is called next."""
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
