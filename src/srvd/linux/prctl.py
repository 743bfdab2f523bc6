"""The one prctl(2) call srvd needs, which Python has no name for.

A file of its own because ctypes costs 2.5 ms to import: only the daemon needs it, and not before its zygotes load.
"""

from __future__ import annotations

import ctypes
import os

from srvd.errors import SystemRefused

__all__ = ["become_subreaper"]

_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become_subreaper() -> None:
    """Become the parent of every orphan among our descendants; kept over exec. Raises `SystemRefused`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        reason = os.strerror(ctypes.get_errno())
        raise SystemRefused(f"become a child subreaper: {reason}; workers of a lost zygote could not be watched")
