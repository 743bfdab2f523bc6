"""Identifies the running program: how to run the same one again, and how to run the one installed later.

Runs nothing. Identifies the program at the start: later its files, or the target of a link, may be of another version.
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
    """`command`: what a person would type; runs whatever program is installed at that time. `interpreter` and `folder`
    (from which srvd is imported): those of this process."""

    command: tuple[str, ...]
    interpreter: str
    folder: str


def this_program(command: tuple[str, ...] = ()) -> Program:
    """Return the running program. `command`: given after an upgrade, when `sys.argv` does not tell it."""
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
