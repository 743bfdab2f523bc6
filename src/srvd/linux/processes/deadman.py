"""A pipe whose writing ends are held by those who look after a process, and a death that needs none of them.

Decides nothing about who holds it. When the last holder is gone the kernel sends SIGNAL to the process at the other
end (fcntl(2), F_SETSIG), and its handler is the C library's alarm(2) itself: async-signal-safe (signal-safety(7)), and
called as any handler is, with the number of the signal – which so becomes the number of seconds. No line of Python is
needed for it, so that it also holds for a process in which C code keeps the interpreter. Whoever is well sets the alarm
again and again; whoever is not is ended by SIGALRM.
"""

from __future__ import annotations

import fcntl
import os
import signal
from select import poll as make_poll

__all__ = ["SECONDS", "SIGNAL", "end_of", "make", "own", "prepare", "tighten"]

SIGNAL = signal.SIGRTMAX
"""The highest there is: the longest time."""

SECONDS = int(SIGNAL)
"""From the end of the last holder to SIGALRM: 64."""


def prepare() -> bool:
    """Make the handler; it stays over a fork, and ends with an exec. False: this Python cannot call the C library."""
    try:
        import ctypes  # an optional part of Python
    except ImportError:
        return False
    libc = ctypes.CDLL(None)
    # Python has no name for a handler that is not Python's; `signal.getsignal` goes on saying SIG_DFL, so
    # `process.reset_signals` leaves it.
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(int(SIGNAL), ctypes.cast(libc.alarm, ctypes.c_void_p))
    return True


def make() -> int:
    """The end to hold of a new one. Raises `OSError`."""
    end, hold = os.pipe()
    os.close(end)
    return hold


def end_of(hold: int) -> int:
    """The end of those who are looked after. Raises `OSError`."""
    return os.open(f"/proc/self/fd/{hold}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def own(end: int) -> None:
    """Have the end of the last holder raise SIGNAL in this process. `end` must be of `end_of`, for this process alone:
    who is signalled belongs to the open file, which a fork shares.
    """
    fcntl.fcntl(end, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(end, fcntl.F_SETSIG, int(SIGNAL))
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)
    # What ended before the flag was set raises no signal.
    poll = make_poll()
    poll.register(end, 0)
    if poll.poll(0):
        tighten()


def tighten(seconds: int = SECONDS) -> None:
    """End this process in so many seconds (0: not at all), unless this is called again before. An application that
    handles SIGALRM has its own use for the alarm: then nothing is done.
    """
    if signal.getsignal(signal.SIGALRM) is signal.SIG_DFL:
        signal.alarm(seconds)
