"""The daemon's standard output in a zygote and its workers: a separate descriptor, for access logs written to stdout.

Descriptors 1 and 2 are the pipe to the daemon, which escapes each line and adds the name of its source: an application
that prints parts of a request could otherwise send control sequences to a terminal, or forge a line of the log.
"""

from __future__ import annotations

import contextlib
import os

__all__ = ["NUMBER", "close", "inherit"]

NUMBER = 4
"""The descriptor, from the start of the zygote's interpreter on."""


def inherit(*, over_exec: bool) -> None:
    """Sets whether programs that this process executes inherit the descriptor: a zygote that executes itself anew does,
    programs of the application do not.
    """
    with contextlib.suppress(OSError):  # the descriptor is closed: no access log is written to stdout
        os.set_inheritable(NUMBER, over_exec)


def close() -> None:
    """Closes the descriptor, for a pool that writes no access log to stdout: its application must not have it."""
    with contextlib.suppress(OSError):
        os.close(NUMBER)
