"""Checks whether this program can be the daemon: `srvd --self-check`, which an upgrade runs before the new program.

Changes and starts nothing: imports all modules, and reads the daemon's state on standard input, if any, and its
configuration. Answers with one line of JSON on standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import stat
import sys
import traceback

import srvd
from srvd import __version__
from srvd.config.source import Source
from srvd.daemon.state import handover
from srvd.daemon.upgrade.program import this_program
from srvd.errors import EXIT, LoadFailed, SrvdError

__all__ = ["run"]

EXTRAS = ("gevent", "greenlet", "uvloop", "h2", "websockets", "textual")
"""Optional dependencies of srvd, by the names that are imported."""


def run() -> int:
    """Run the check and write the answer. Returns the exit code. Standard input is the state if it is a file."""
    program = this_program()
    answer: dict[str, object] = {"version": __version__, "python": program.interpreter, "folder": program.folder}
    code = EXIT.DONE
    try:
        _import_everything()
        if stat.S_ISREG(os.fstat(0).st_mode):
            _read_state()
    except SrvdError as problem:
        answer["error"] = problem.to_wire()
        code = problem.exit_code
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return code


def _import_everything() -> None:
    for module in pkgutil.walk_packages(srvd.__path__, "srvd."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except Exception as exc:  # of any kind: this program is broken, and that is the answer
            if isinstance(exc, ModuleNotFoundError) and (exc.name or "").partition(".")[0] in EXTRAS:
                continue
            text = f"import {module.name}: {type(exc).__name__}: {exc}"
            raise LoadFailed(text, detail={"traceback": traceback.format_exc()}) from exc


def _read_state() -> None:
    with open(0, "rb", closefd=False) as file:
        found = handover.read(file.read())
    Source.restore(found.shell.source).read()
