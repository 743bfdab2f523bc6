"""Which program runs here, and how the same one, or the one that is installed by then, is run again.

Runs nothing. Asked at the start: later its files, or what a link points to, may be another version's.
"""

from __future__ import annotations

import os
import sys

import srvd
from srvd.daemon.keepsake import is_keepsake
from srvd.record import Record

__all__ = ["Program", "this_program"]


class Program(Record):
    """`command` is what a person would type, and leads to whatever is installed then. `interpreter` and `folder`, from
    which srvd is imported, are those of this very process."""

    command: tuple[str, ...]
    interpreter: str
    folder: str


def this_program(command: tuple[str, ...] = ()) -> Program:
    """The running one. `command` if it is known better than from `sys.argv`: after an upgrade."""
    here, name = os.path.split(sys.executable)
    # Only the folder: a virtual environment's interpreter is a link, and by its own place it finds its packages.
    interpreter = os.path.join(os.path.realpath(here), name)
    folder = os.path.dirname(os.path.dirname(srvd.__file__))
    if not is_keepsake(folder):
        folder = os.path.realpath(folder)
    return Program(command or _command(), interpreter, folder)


def _command() -> tuple[str, ...]:
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "__main__.py":
        return (sys.executable, "-m", "srvd")
    return (script,) if os.access(script, os.X_OK) else (sys.executable, script)
