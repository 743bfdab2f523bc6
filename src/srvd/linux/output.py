"""The daemon's standard output in a zygote and its workers: a descriptor of its own, for access logs that go there.

Descriptors 1 and 2 are the pipe to the daemon, which names each line and escapes it: what an application prints of a
request could otherwise steer a terminal, or pass for a line of the log.
"""

from __future__ import annotations

import contextlib
import os

__all__ = ["NUMBER", "close", "inherit"]

NUMBER = 4
"""The descriptor, from the start of the zygote's interpreter on."""


def inherit(*, over_exec: bool) -> None:
    """Whether the programs that this process starts have it: a zygote that begins anew has, an application's not."""
    with contextlib.suppress(OSError):  # it is closed: no access log goes there
        os.set_inheritable(NUMBER, over_exec)


def close() -> None:
    """No access log of this pool goes there: the application has no business with it."""
    with contextlib.suppress(OSError):
        os.close(NUMBER)
