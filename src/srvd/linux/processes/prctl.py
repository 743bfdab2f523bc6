"""The prctl(2) calls that srvd needs, made with ctypes because Python has no function for them.

A module of its own, because importing ctypes takes 2.5 ms, which the daemon spends while its zygotes load already; and
because a pool's Python may lack ctypes, which matters only if the pool changes its user.
"""

from __future__ import annotations

import ctypes
import os
import signal

from srvd.errors import SystemRefused

__all__ = ["become_subreaper", "end_with_parent", "stay_readable"]

_SET_PDEATHSIG = 1
_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SET_DUMPABLE = 4


def become_subreaper() -> None:
    """Makes this process the parent of all orphans among its descendants; kept by an exec. Raises `SystemRefused`."""
    reason = _prctl(_SET_CHILD_SUBREAPER, 1)
    if reason:
        raise SystemRefused(f"become a child subreaper: {reason}; workers of a lost zygote could not be watched")


def stay_readable() -> None:
    """Lets the process read its own /proc again, which setresuid(2) has prevented (PR_SET_DUMPABLE, proc(5)).

    Raises `OSError`.
    """
    reason = _prctl(_SET_DUMPABLE, 1)
    if reason:
        raise OSError(f"stay readable after the change of user: {reason}")


def end_with_parent(*, on: bool = True) -> None:
    """Makes the kernel kill this process (SIGKILL) when the thread that started it ends; or stops that.

    Kept by an exec, reset by a fork and by a change of user (PR_SET_PDEATHSIG, prctl(2)). Raises `OSError`.
    """
    reason = _prctl(_SET_PDEATHSIG, signal.SIGKILL if on else 0)
    if reason:
        raise OSError(f"end with the parent: {reason}")


def _prctl(option: int, value: int) -> str:
    """Makes the call, and returns the kernel's reason for a refusal, or ""."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero):
        return os.strerror(ctypes.get_errno())
    return ""
