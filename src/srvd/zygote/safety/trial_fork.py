"""Forks once, to see which threads cope with a fork: threads that end before, and threads that a child starts again.

OpenBLAS (numpy, scipy) ends its threads in a handler of pthread_atfork(3) and starts them again when it needs them;
exporters of OpenTelemetry start theirs again in the child. Libraries are not known by name; only threads are seen.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from select import POLLIN
from select import poll as make_poll

from srvd.zygote.safety.native import python_threads

__all__ = ["stranded"]

_PATIENCE = 5.0
"""Seconds for the child, in which handlers of the application run; then the child is killed."""

_GRACE = 0.1
"""Seconds for threads that were joined to end in the kernel, too: `Thread.join` returns a moment earlier."""

_LONGEST = 4096  # bytes of names; a pipe takes them without waiting


def stranded() -> set[int]:
    """The threads of this process, other than the main thread, that a forked child would lack."""
    if not _others():
        return set()
    names = _names_in_child() if _gone(_others()) else set()
    # After the fork, because threads may have ended for it and a handler may have started others.
    left = _gone(_others())
    here = python_threads()
    return {task for task in left if here.get(task) not in names}


def _others() -> set[int]:
    return set(map(int, os.listdir("/proc/self/task"))) - {os.getpid()}


def _gone(tasks: set[int]) -> set[int]:
    """The tasks that have not ended within the grace."""
    deadline = time.monotonic() + _GRACE
    left = tasks & _others()
    while left and time.monotonic() < deadline:
        time.sleep(0.005)
        left = left & _others()
    return left


def _names_in_child() -> set[str]:
    """The names of the threads that a child has right after the fork."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.write(write, "\0".join(python_threads().values()).encode()[:_LONGEST])
            finally:
                os._exit(0)
        _wait(pid)
        try:
            told = os.read(read, _LONGEST)
        except BlockingIOError:  # the child has written nothing
            told = b""
        return set(told.decode("utf-8", "ignore").split("\0"))
    finally:
        os.close(read)
        os.close(write)


def _wait(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        poll = make_poll()
        poll.register(pidfd, POLLIN)
        if not poll.poll(_PATIENCE * 1000):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with suppress(ChildProcessError):  # the application ignores SIGCHLD: the kernel has reaped it
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    finally:
        os.close(pidfd)
