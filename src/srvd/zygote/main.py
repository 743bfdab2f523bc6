"""The process of a zygote: gets its job, does it, and ends.

Loads nothing and forks nothing; `serving.py` does. A fresh interpreter with one thread that blocks; the daemon limits
the time.
"""

from __future__ import annotations

import faulthandler
import io
import os
import socket
import sys
import time
from typing import NoReturn

from srvd.linux import output
from srvd.linux.processes import deadman, process
from srvd.zygote.job import hear
from srvd.zygote.renewal import unpack
from srvd.zygote.serving import serve

__all__ = ["live"]


def live() -> NoReturn:
    """Be a zygote. `_zygote_entry.py` has the arguments and descriptors."""
    arguments = list(sys.argv)
    born = time.monotonic()
    code = 70
    faulthandler.enable(file=2)  # by number, so that a worker's own stderr is written to after the fork
    try:
        link = socket.socket(fileno=int(arguments[1]))
        link.set_inheritable(False)
        output.inherit(over_exec=False)
        _print_by_lines()
        # Imports ctypes (2 ms, 0.7 MiB that workers share): here, while a start's interpreter waits for its job.
        deadman.prepare()
        process.raise_open_files()  # here, too: a prepared interpreter is older than the daemon's limit
        job = unpack(int(arguments[2])) if len(arguments) > 2 else hear(link)
        code = 0 if job is None else serve(link, job, born)
    except BaseException as exc:  # the process ends here
        sys.__excepthook__(type(exc), exc, exc.__traceback__)  # not `import traceback`: 5 ms that a start need not wait
    finally:
        # Not sys.exit: that would run what the application registered for its own end, and wait for its threads.
        _leave(code)


def _print_by_lines() -> None:
    """Flush after each line, so that the log has printed lines in order with those of standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _leave(code: int) -> NoReturn:
    """Exit at once, after flushing what was printed."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
