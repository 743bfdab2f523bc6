"""Runs in each process of a recorded daemon before anything else: notes which functions of srvd are called.

An interpreter finds it by PYTHONPATH, which tests/support/recording.py sets. A process that is forked goes on with it,
and so does one that replaces its program. A function is noted once in each window, once more if it is called to save
the state; what runs because a module is imported is not noted.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from types import CodeType, FrameType

_OURS = "/src/srvd/"
_SAVES = "/src/srvd/daemon/recovery/state_file.py"
_FOLDER = os.environ["RECORDER_FOLDER"]


def _window() -> mmap.mmap:
    """Eight bytes of a file that all processes share: the number of the window that is open, 0 for none."""
    number = os.open(os.path.join(_FOLDER, "window"), os.O_RDONLY)
    try:
        return mmap.mmap(number, 8, prot=mmap.PROT_READ)
    finally:
        os.close(number)


_window_number = memoryview(_window()).cast("q")
_seen: set[tuple[int, int, CodeType, bool]] = set()


def _note(frame: FrameType, event: str, _: object) -> None:
    window = _window_number[0]
    code = frame.f_code
    if event != "call" or not window or _OURS not in code.co_filename:
        return
    imported, saves = _beneath(frame)
    key = (window, os.getpid(), code, saves)
    if imported or key in _seen:
        return
    _seen.add(key)
    path = code.co_filename.rpartition(_OURS)[2]
    line = f"{window} {os.getpid()} {'saves' if saves else '-'} {path}:{code.co_qualname}\n"
    # Opened anew each time: daemons and zygotes close or count what they have open.
    number = os.open(os.path.join(_FOLDER, "calls"), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        os.write(number, line.encode())
    finally:
        os.close(number)


def _beneath(frame: FrameType | None) -> tuple[bool, bool]:
    """Whether it is called by a module of srvd that is being imported, and whether in order to save the state."""
    imported = saves = False
    while frame is not None:
        code = frame.f_code
        imported = imported or (code.co_name == "<module>" and _OURS in code.co_filename)
        saves = saves or code.co_filename.endswith(_SAVES)
        frame = frame.f_back
    return imported, saves


threading.setprofile(_note)
sys.setprofile(_note)
