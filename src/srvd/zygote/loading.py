"""Makes the process the application's place, loads it, and tells whether it survives a fork.

Forks nothing. What it changes – folder, path, environment by the application itself – is for good.
"""

from __future__ import annotations

import os
import sys

from srvd.errors import LoadFailed
from srvd.record import Record
from srvd.wire import family
from srvd.worker import application, hooks
from srvd.worker.hooks import Hooks
from srvd.zygote import residue

__all__ = ["Outcome", "enter", "load"]


class Outcome(Record):
    """`app` None: not preloaded. `tainted`: this process cannot fork workers, a fresh one has to."""

    app: object | None
    notes: list[str]
    tainted: bool = False
    hooks: Hooks | None = None  # None: not preloaded either


def enter(wanted: family.Load) -> None:
    """Change to the application's folder and put its folders before all others. Raises `LoadFailed`."""
    if wanted.chdir:
        try:
            os.chdir(wanted.chdir)
        except OSError as exc:
            raise LoadFailed(
                f"change to {wanted.chdir}: {exc.strerror}; the application was not loaded", hint="correct `chdir`"
            ) from exc
    try:
        here = os.getcwd()
    except FileNotFoundError as exc:
        raise LoadFailed(
            "find the folder to load from: the one that srvd was started in has been removed; the application was not "
            "loaded",
            hint="set `chdir` to where the application is; a path with a link in it may stay the same over releases",
        ) from exc
    # The working directory first, as users of a WSGI server expect; -P kept the interpreter from doing so itself,
    # which would have let a module of that folder pass for one that the zygote is made of.
    sys.path[:0] = [here, *(os.path.abspath(folder) for folder in wanted.pythonpath)]
    sys.argv[1:] = []


def load(wanted: family.Load) -> Outcome:
    """Load the application and its hooks as far as `preload` asks for. Raises `LoadFailed`."""
    if wanted.preload == "off":
        return Outcome(None, [])
    before = residue.take()
    app = application.load(wanted.app)
    hooked, warnings = hooks.load(str(wanted.settings.get("hooks", "")))
    left = residue.what_came(before)
    if not left:
        return Outcome(app, warnings, hooks=hooked)
    what = f"loading {wanted.app} left {' and '.join(left)} behind"
    if wanted.preload == "on":
        notes = [f"{what}, which no worker will have: they do not survive a fork"]
        return Outcome(app, [*warnings, *notes], hooks=hooked)
    return Outcome(None, [f"{what}, which would not survive a fork: each worker loads the application itself"], True)
