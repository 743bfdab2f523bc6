"""Ends a process some time after all processes that supervise it have ended. The supervisors hold the writing end of a
pipe, the supervised process has the reading end.

Does not decide which processes hold the pipe. When the last holder has ended, the kernel sends SIGNAL to the process
with the reading end (fcntl(2), F_SETSIG). The handler is the C library's alarm(2) itself, which is async-signal-safe
(signal-safety(7)). Like any handler, alarm(2) is called with the number of the signal, which so becomes the number of
seconds. The handler runs no Python code, and so also works in a process in which C code keeps the interpreter's lock. A
healthy process sets the alarm again before it expires; SIGALRM ends any other.
"""

from __future__ import annotations

import fcntl
import os
import signal

from srvd.linux.fds import has_hung_up

__all__ = ["SECONDS", "SIGNAL", "end_of", "make", "own", "prepare", "tighten"]

SIGNAL = signal.SIGRTMAX
"""The signal with the highest number, for the longest time."""

SECONDS = int(SIGNAL)
"""From the end of the last holder to SIGALRM: 64."""


def prepare() -> bool:
    """Installs the handler, which a fork keeps and an exec removes. Returns False if this Python has no ctypes."""
    try:
        import ctypes  # an optional part of Python
    except ImportError:
        return False
    libc = ctypes.CDLL(None)
    # Python does not know a handler installed by C code: `signal.getsignal` still returns SIG_DFL, so
    # `process.reset_signals` keeps the handler.
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(int(SIGNAL), ctypes.cast(libc.alarm, ctypes.c_void_p))
    return True


def make() -> int:
    """Makes a new pipe, and returns the end that supervisors hold. Raises `OSError`."""
    end, hold = os.pipe()
    os.close(end)
    return hold


def end_of(hold: int) -> int:
    """Opens the end of a supervised process. Raises `OSError`."""
    return os.open(f"/proc/self/fd/{hold}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def own(end: int) -> None:
    """Makes the kernel send SIGNAL to this process when the last holder has ended. `end` must come from `end_of`, for
    this process alone: the process to signal is a property of the open file description, which a fork shares.
    """
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, fcntl.F_SETSIG, int(SIGNAL))
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)
    # A holder that ended before the flag was set raises no signal.
    if has_hung_up(end):
        tighten()


def tighten(seconds: int = SECONDS) -> None:
    """Sets the alarm that ends this process in so many seconds (0: no alarm), unless this is called again before. Does
    nothing if the application handles SIGALRM, because the alarm is its own then.
    """
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.alarm(seconds)
