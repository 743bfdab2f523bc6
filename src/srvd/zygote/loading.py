"""Makes the process the application's place, loads it, and tells whether it survives a fork.

Forks nothing. What it changes – folder, path, environment by the application itself – is for good.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from srvd.errors import LoadFailed
from srvd.wire import family
from srvd.worker import application
from srvd.zygote import residue

__all__ = ["Outcome", "enter", "load"]


class Outcome(NamedTuple):
    """`app` None: not preloaded. `tainted`: this process cannot fork workers, a fresh one has to."""

    app: object | None
    notes: list[str]
    tainted: bool = False


def enter(wanted: family.Load) -> None:
    """Change to the application's folder and put its folders before all others. Raises `LoadFailed`."""
    if wanted.chdir:
        try:
            os.chdir(wanted.chdir)
        except OSError as exc:
            raise LoadFailed(
                f"change to {wanted.chdir}: {exc.strerror}; the application was not loaded", hint="correct `chdir`"
            ) from exc
    # The working directory first, as users of a WSGI server expect; -P kept the interpreter from doing so itself,
    # which would have let a module of that folder pass for one that the zygote is made of.
    sys.path[:0] = [os.getcwd(), *(os.path.abspath(folder) for folder in wanted.pythonpath)]
    sys.argv[1:] = []


def load(wanted: family.Load) -> Outcome:
    """Load the application as far as `preload` asks for. Raises `LoadFailed`."""
    if wanted.preload == "off":
        return Outcome(None, [])
    before = residue.take()
    app = application.load(wanted.app)
    left = residue.what_came(before)
    if not left:
        return Outcome(app, [])
    what = f"loading {wanted.app} left {' and '.join(left)} behind"
    if wanted.preload == "on":
        return Outcome(app, [f"{what}, which no worker will have: they do not survive a fork"])
    return Outcome(None, [f"{what}, which would not survive a fork: each worker loads the application itself"], True)
