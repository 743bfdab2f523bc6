"""Imports the modules that a worker needed for its first answers, so that later workers are forked with them.

Decides nothing about which modules: the daemon names them. A fork of the zygote tries the imports first and looks for
threads and connections, which could not be undone here.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence

from srvd.linux.processes.dispositions import NOTHING, Dispositions
from srvd.linux.processes.tether import tethered
from srvd.record import Record
from srvd.worker import forked
from srvd.zygote.safety import fork_safety
from srvd.zygote.template import WorkerTemplate

__all__ = ["Imported", "learn", "taught"]

_REPORT = 4000
"""Bytes of the trial's report: a pipe takes so many at once, whichever processes have its other end."""


class Imported(Record):
    """whole: all modules are imported; else each worker imports the rest by itself. notes: the reasons, for people."""

    whole: bool
    notes: list[str]
    dispositions: Dispositions = NOTHING  # that workers are given back


def taught(template: WorkerTemplate, link: socket.socket, modules: Sequence[str]) -> tuple[WorkerTemplate, list[str]]:
    """Return the template of workers that have these modules, and for people what could not be imported. `link`: to the
    daemon.
    """
    with tethered(link), forked.guarded(lambda: [link.fileno()]):
        imported = learn(modules, preload=template.wanted.preload, seconds=template.pool.boot_timeout / 2)
    gc.collect()
    gc.freeze()
    dispositions = template.dispositions.joined(imported.dispositions)
    return template._replace(warms=template.warms or not imported.whole, dispositions=dispositions), imported.notes


def learn(modules: Sequence[str], *, preload: str, seconds: float) -> Imported:
    """Import the modules, as far as they can be imported outside of a request.

    preload: the pool's setting; with "auto", nothing is imported that would leave threads or connections.
    seconds: time limit of the trial.
    """
    what = f"importing {fork_safety.some_of(modules)}"
    try:
        left = _try(modules, seconds)
    except OSError as exc:  # no process or descriptor to be had
        return Imported(False, [f"{what} could not be tried ({exc.strerror}): each worker imports that by itself"])
    if left and preload == "auto":
        return Imported(False, [f"{what} {left}: each worker imports that by itself"])
    before = fork_safety.take()
    failed = _import(modules)
    found = fork_safety.settle(before)
    notes = [f"{what} {left}, which no worker will have"] if left else []
    if failed:
        notes.append(f"not to be imported outside of a request, and left to each worker: {fork_safety.some_of(failed)}")
    return Imported(not failed, notes, found)


def _import(modules: Sequence[str]) -> list[str]:
    """Import the modules. Returns those that raised, with their errors."""
    failed = []
    for name in modules:
        if name not in sys.modules:
            try:
                importlib.import_module(name)
            except KeyboardInterrupt:
                raise
            except BaseException as exc:  # of the module's own code; its sys.exit must not end the zygote
                failed.append(f"{name} ({type(exc).__name__}: {str(exc)[:200]})")
    return failed


def _try(modules: Sequence[str], seconds: float) -> str:
    """Import the modules in a forked child. Returns what that left behind there, "" if nothing. Raises `OSError`."""
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if pid == 0:
        _report_trial(modules, write)
    os.close(write)
    poll = select.poll()
    poll.register(read, select.POLLIN)
    told = os.read(read, _REPORT) if poll.poll(seconds * 1000) else b"- was not done in time"
    os.close(read)
    if not told or told[:1] == b"-":
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return told[1:].decode(errors="replace").strip() if told else "ended the process that tried it"


def _report_trial(modules: Sequence[str], write: int) -> None:
    """In the child: import the modules, report what they left behind, and exit."""
    try:
        silence = os.open(os.devnull, os.O_WRONLY)  # the zygote's own import will print the same
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        before = fork_safety.take()
        with forked.guarded(lambda: [write]):
            _import(modules)
        left = fork_safety.compare(before).loaded
        text = f"left {' and '.join(left)} behind, which would not survive a fork" if left else ""
        os.write(write, b"+" + text.encode(errors="replace")[: _REPORT - 1])
    finally:
        os._exit(0)
