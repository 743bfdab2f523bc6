"""Which program runs here, and how the same one, or the one that is installed by then, is run again.

Runs nothing. Asked at the start: later its files, or what a link points to, may be another version's.
"""

from __future__ import annotations

import os
import sys

import srvd
from srvd.daemon.upgrade.source_archive import is_archive
from srvd.linux.interpreter import pinned, typed_interpreter
from srvd.linux.processes.cwd import named_folder
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
    folder = os.path.dirname(os.path.dirname(srvd.__file__))
    if not is_archive(folder):
        folder = os.path.realpath(folder)
    return Program(command or _command(), pinned(sys.executable), folder)


def _command() -> tuple[str, ...]:
    folder = named_folder(os.environ)
    script = os.path.join(folder, sys.argv[0])
    if os.path.basename(script) == "__main__.py":
        return (typed_interpreter(folder), "-P", "-m", "srvd")  # -P: no module of the working directory
    return (script,) if os.access(script, os.X_OK) else (sys.executable, script)
