"""The terminal of `srvd start` in the processes of an application under development, so that `breakpoint()` works.

A process of a session of its own may read from a terminal that is not its controlling one: the kernel's job control
looks only at processes whose controlling terminal it is (`__tty_check_change` in drivers/tty/tty_jobctrl.c). Signals of
its keys still go to the daemon alone.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["take", "take_again"]


def take(path: str) -> None:
    """Makes the terminal standard input, output and error; "" or one that may not be opened: all stays as it is."""
    if not path:
        return
    with suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        for number in range(3):
            os.dup2(fd, number)
        os.close(fd)


def take_again() -> None:
    """Makes standard input output and error, too, if it is a terminal: a fork has begun with others."""
    if os.isatty(0):
        os.dup2(0, 1)
        os.dup2(0, 2)
