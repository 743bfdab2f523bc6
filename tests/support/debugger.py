"""A debugger that holds a process, as gdb does when it has attached to one. Linux' ptrace(2), by ctypes.

Looks at nothing in the process.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_WALL = 0x40000000  # waitpid(2): also for one that is not our child

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def held(*pids: int) -> Iterator[None]:
    """The main threads of these processes stand still within the block; to be entered and left by one thread."""
    for pid in pids:
        if _libc.ptrace(_SEIZE, pid, None, None):
            pytest.skip(f"ptrace: {os.strerror(ctypes.get_errno())}")
        _libc.ptrace(_INTERRUPT, pid, None, None)
        os.waitpid(pid, _WALL)
    try:
        yield
    finally:
        for pid in pids:
            _libc.ptrace(_DETACH, pid, None, None)
