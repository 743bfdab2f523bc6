"""The two prctl(2) calls srvd needs, which Python has no name for.

A file of its own because ctypes costs 2.5 ms to import, which the daemon does when its zygotes load already; and a
pool's Python may be built without it, which matters only where the pool changes its user.
"""

from __future__ import annotations

import ctypes
import os

from srvd.errors import SystemRefused

__all__ = ["become_subreaper", "stay_readable"]

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SET_DUMPABLE = 4


def become_subreaper() -> None:
    """Become the parent of every orphan among our descendants; kept over exec. Raises `SystemRefused`."""
    reason = _prctl(_SET_CHILD_SUBREAPER, 1)
    if reason:
        raise SystemRefused(f"become a child subreaper: {reason}; workers of a lost zygote could not be watched")


def stay_readable() -> None:
    """Let the process read its own /proc again, which setresuid(2) has closed to it (PR_SET_DUMPABLE, proc(5)).

    Raises `OSError`.
    """
    reason = _prctl(_SET_DUMPABLE, 1)
    if reason:
        raise OSError(f"stay readable after the change of user: {reason}")


def _prctl(option: int, value: int) -> str:
    """Why not, or ""."""
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    if libc.prctl(option, ctypes.c_ulong(value), zero, zero, zero):
        return os.strerror(ctypes.get_errno())
    return ""
