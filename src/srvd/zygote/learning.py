"""Imports what a worker had to import to answer, so that all others are forked with it.

Not before a fork of this process has tried the same and looked at what that leaves behind: a thread or a connection
could not be undone here.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
from collections.abc import Sequence

from srvd.linux.dispositions import NOTHING, Dispositions
from srvd.record import Record
from srvd.worker import forked
from srvd.zygote import fork_safety

__all__ = ["Lesson", "learn"]

_WORDS = 4000
"""Bytes that the trial tells: a pipe takes so many at once, whoever else has its end."""


class Lesson(Record):
    """`whole`: all of it is imported; else each worker has to import the rest by itself. `notes` say why."""

    whole: bool
    notes: list[str]
    dispositions: Dispositions = NOTHING  # what workers are given back


def learn(modules: Sequence[str], *, preload: str, seconds: float) -> Lesson:
    """Import the modules, as far as that can be done outside of a request, within about `seconds`."""
    what = f"importing {fork_safety.some_of(modules)}"
    try:
        left = _try(modules, seconds)
    except OSError as exc:  # a shortage of processes or descriptors
        return Lesson(False, [f"{what} could not be tried ({exc.strerror}): each worker imports that by itself"])
    if left and preload == "auto":
        return Lesson(False, [f"{what} {left}: each worker imports that by itself"])
    before = fork_safety.take()
    failed = _import(modules)
    found = fork_safety.settle(before)
    notes = [f"{what} {left}, which no worker will have"] if left else []
    if failed:
        notes.append(f"not to be imported outside of a request, and left to each worker: {fork_safety.some_of(failed)}")
    return Lesson(not failed, notes, found)


def _import(modules: Sequence[str]) -> list[str]:
    """Those that raised, with their errors."""
    failed = []
    for name in modules:
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # foreign code ends here; sys.exit in a module must not end the zygote
                failed.append(f"{name} ({type(exc).__name__}: {str(exc)[:200]})")
    return failed


def _try(modules: Sequence[str], seconds: float) -> str:
    """What importing them did to a process that was forked for it, "" if it may be done here. Raises `OSError`."""
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if pid == 0:
        _be_tried(modules, write)
    os.close(write)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    told = os.read(read, _WORDS) if poll.poll(seconds * 1000) else b"- was not done in time"
    os.close(read)
    if not told or told[:1] == b"-":
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return told[1:].decode(errors="replace").strip() if told else "ended the process that tried it"


def _be_tried(modules: Sequence[str], write: int) -> None:
    """Import them, tell what that left, and end."""
    try:
        silence = os.open(os.devnull, os.O_WRONLY)  # the same will be printed by the one that does it in earnest
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        before = fork_safety.take()
        with forked.guarded(lambda: [write]):
            _import(modules)
        left = fork_safety.compare(before).loaded
        text = f"left {' and '.join(left)} behind, which would not survive a fork" if left else ""
        os.write(write, b"+" + text.encode(errors="replace")[: _WORDS - 1])
    finally:
        os._exit(0)
