"""Reports which children a signal has stopped or continued: SIGCHLD as a descriptor for an epoll.

Stops by a debugger are not seen: the kernel reports them to the debugger. Knows pids only, and sends no signal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from srvd.linux.processes import process

__all__ = ["ChildSignals"]


class ChildSignals:
    """At most one in a process, made in the main thread. Owns a pipe and the handler of SIGCHLD."""

    def __init__(self) -> None:
        # Not a Python handler that writes: if due just before epoll_wait(2), it would run only after the wait.
        self.fd, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _heard)
        signal.siginterrupt(signal.SIGCHLD, False)

    def read(self) -> Iterator[process.Halt]:
        """The stops and continuations since the last call. Ends of children are left to be read by their pidfds."""
        os.read(self.fd, 65_536)  # all that a pipe holds; other signals write there, too
        yield from process.halts()

    def close(self) -> None:
        """Release the pipe, in a forked child, which has no children yet. The handler is reset with all others."""
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)


def _heard(number: int, frame: object) -> None:
    """Do nothing: the wakeup descriptor has written to the pipe, as it does only for signals with a handler."""
