"""Begins a zygote anew, as a fresh interpreter without the application, which a fork would not carry over.

Does not decide that; `loading.py` does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import NoReturn

import msgpack

from srvd.linux import fds, output
from srvd.linux.processes import dispositions, process, stacks
from srvd.worker.observe.access_file import STANDARD_OUTPUT
from srvd.zygote import loading
from srvd.zygote.job import LoadJob, Origin, understand

__all__ = ["begin_anew", "unpack"]


def begin_anew(link: socket.socket, job: LoadJob, origin: Origin, outcome: loading.Outcome) -> NoReturn:
    """Become a fresh interpreter without the application, so that threads, connections and timers end.

    The pid, the link and the descriptors stay: the daemon notices nothing. Raises `OSError`.
    """
    for child in outcome.children:  # not reaped, so the pid is still its own; each worker starts another
        os.kill(child, signal.SIGTERM)
    load = understand(job.datagram)
    packed = msgpack.packb([job.datagram, job.fds, job.notes, job.seconds])
    note = fds.memfd(f"srvd-load-{load.generation}", packed)
    for fd in (link.fileno(), note, *job.fds):
        os.set_inheritable(fd, True)
    if load.settings.get("access_log") == STANDARD_OUTPUT:
        output.inherit(over_exec=True)
    dispositions.clear_timers()  # they would survive the exec
    process.reset_signals()
    # Without handlers these signals would end the process; they stay blocked until there are handlers again.
    signal.pthread_sigmask(signal.SIG_BLOCK, [stacks.ASK, stacks.DUMP])
    with contextlib.suppress(
        PermissionError
    ):  # the pool's user may not enter the folder; then the process stays where it is
        os.chdir(origin.folder)
    os.umask(origin.umask)
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = list(sys.orig_argv)
    if outcome.unsited:
        # -S: neither sitecustomize nor a .pth file is run. Their changes of sys.path are known, and needed.
        code = arguments.index("-c")
        arguments[code : code + 2] = ["-S", "-c", f"import sys; sys.path[:] = {origin.path!r}; {arguments[code + 1]}"]
    os.execve(sys.executable, [*arguments, str(note)], origin.environ)  # noqa: S606 - no shell is wanted


def unpack(fd: int) -> LoadJob:
    """The job that `begin_anew` has packed."""
    with open(fd, "rb") as file:
        datagram, passed, notes, seconds = msgpack.unpackb(file.read())
    for inherited in passed:
        os.set_inheritable(inherited, False)
    return LoadJob(bytes(datagram), [int(fd) for fd in passed], [str(note) for note in notes], float(seconds), False)
