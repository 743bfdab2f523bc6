"""Hears which children a signal has stopped, and which go on: SIGCHLD as a descriptor for an epoll.

A debugger's stops are not heard: the kernel tells them to the debugger. Knows no worker by name, and continues nobody.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from srvd.linux import process

__all__ = ["Stops"]


class Stops:
    """One a process, in its main thread. Owns the pipe and the handler of SIGCHLD."""

    def __init__(self) -> None:
        # Not a handler that writes: one that is due between Python's look and epoll_wait(2) would run after the wait.
        self.fd, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _heard)
        signal.siginterrupt(signal.SIGCHLD, False)

    def read(self) -> Iterator[process.Halt]:
        """What has happened since the last time. The ends of children stay to be read by their pidfds."""
        os.read(self.fd, 65_536)  # other signals write there, too; a pipe holds no more
        yield from process.halts()

    def close(self) -> None:
        """In a child, which has no children yet: give all of it back. The handler is reset with all others."""
        signal.set_wakeup_fd(-1)
        os.close(self.fd)
        os.close(self._writer)


def _heard(number: int, frame: object) -> None:
    """The pipe has it; without a handler there would be nothing in the pipe."""
