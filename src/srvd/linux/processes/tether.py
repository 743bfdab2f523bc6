"""Ends a zygote with its daemon while foreign code runs, which may never return: the link is not read meanwhile.

Does not watch the link, as a worker that boots does (`fds.kill_at_end`): a zygote has just read a datagram there. The
kernel wakes the reader of a datagram first, and raises the signal of its arrival later, at any time.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from srvd.linux.fds import has_hung_up

__all__ = ["tethered"]


@contextmanager
def tethered(link: socket.socket) -> Iterator[None]:
    """The kernel kills the zygote if its parent, the daemon, ends in the block. `link`: to the daemon.

    Without effect for an adopted zygote, whose parent is another process, and for a Python without ctypes: such a
    zygote finds the end of the link when the foreign code returns. Raises `OSError`.
    """
    try:
        # Imported here: needs ctypes, which not every Python has.
        from srvd.linux.processes.prctl import end_with_parent
    except ImportError:
        yield
        return
    end_with_parent()
    if has_hung_up(link.fileno()):  # the daemon ended before
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        yield
    finally:
        end_with_parent(on=False)
