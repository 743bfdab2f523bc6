"""Enters the application's folder, loads the application, and judges whether it survives a fork.

Forks no worker. Changes of the folder and of sys.path are never undone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial

from srvd.errors import LoadFailed
from srvd.linux.processes.dispositions import NOTHING, Dispositions
from srvd.record import Record
from srvd.wire import links, paths
from srvd.worker.app import hooks, interface, loader
from srvd.worker.boot import Preloaded
from srvd.zygote.safety import fork_safety

__all__ = ["Outcome", "enter", "load"]


_STARTED = "the start of the interpreter (sitecustomize, or a .pth file)"
_NAMED = 8  # processes; the rest is counted


class Outcome(Record):
    """tainted: this process cannot fork workers; a fresh one has to be started."""

    preloaded: Preloaded | None  # None: each worker loads the application
    notes: list[str]
    tainted: bool = False
    dispositions: Dispositions = NOTHING  # that workers are given back
    unsited: bool = False  # the workers of the fresh process run the module `site`, not the process itself
    children: Sequence[int] = ()  # pids of processes that loading has started and that a fresh process does not use


def enter(wanted: links.Load) -> str:
    """Change to the application's folder, and put that folder and `pythonpath` first into sys.path.

    Returns the real path of the folder. Raises `LoadFailed`.
    """
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
    # The working directory first, as users of a WSGI server expect. The interpreter was started with -P, so that no
    # module of that folder is imported in place of one of the zygote's own.
    # Real paths: behind a link that is switched later, a late import would find another release's modules.
    sys.path[:0] = [here, *(os.path.realpath(folder) for folder in wanted.pythonpath)]
    sys.argv[1:] = []
    return here


def load(wanted: links.Load) -> Outcome:
    """Load the application and its hooks, unless `preload` is off. Raises `LoadFailed`."""
    if wanted.settings.get("engine") == "gevent":
        from srvd.zygote import patching  # only here: imports the package gevent

        patching.patch()
    before = fork_safety.take()
    if wanted.preload == "off":
        return _without(wanted, before)
    called = str(wanted.settings.get("interface", "auto"))
    warnings: list[str] = []
    load_it = partial(_import, wanted, called, warnings)
    if wanted.settings.get("reload", "off") == "off":
        app, hooked = load_it()
    else:
        from srvd.worker.develop.loading import Development

        app, hooked = Development(paths.watcher_address(os.getppid()), wanted.pool, called).load(load_it)
    left = fork_safety.compare(before)
    found = fork_safety.settle(before)
    threads, root_path = wanted.settings.get("threads"), str(wanted.settings.get("root_path", ""))
    effectless = interface.without_effect(app, called, threads if isinstance(threads, int) else 1, root_path)
    notes = [*warnings, *effectless]
    outcome = Outcome(Preloaded(app, hooked), notes, dispositions=found)
    if left.started or left.loaded:
        outcome = _judge(wanted, left, outcome)
    if left.children and not outcome.tainted:
        outcome = outcome._replace(notes=[*outcome.notes, _of_children(wanted, left.children)])
    return outcome


def _import(wanted: links.Load, called: str, warnings: list[str]) -> Preloaded:
    """Load the application and its hooks. Raises `LoadFailed`. Adds to `warnings`."""
    module = str(wanted.settings.get("hooks", ""))
    early = hooks.load(module) if wanted.settings.get("hooks_first") else None
    app = loader.load(wanted.app, called)
    hooked, said = early or hooks.load(module)
    warnings += said
    return Preloaded(app, hooked)


def _without(wanted: links.Load, before: fork_safety.Inventory) -> Outcome:
    """The outcome with `preload` off: each worker loads. Only the start of the interpreter may have left threads."""
    if sys.flags.no_site or not before.tasks:
        return Outcome(None, [])
    left = fork_safety.compare(before)
    return _judge(wanted, left, Outcome(None, [])) if left.started else Outcome(None, [])


def _judge(wanted: links.Load, left: fork_safety.Residue, outcome: Outcome) -> Outcome:
    """The outcome when threads or connections would not survive a fork, by the setting `preload`."""
    causes = []
    if left.loaded:
        causes.append(f"loading {wanted.app} left {' and '.join(left.loaded)} behind")
    if left.started:
        causes.append(f"{_STARTED} left {' and '.join(left.started)} behind")
    what = " and ".join(causes)
    if wanted.preload == "on":
        lacking = f"{what}, which no worker will have: they do not survive a fork"
        return outcome._replace(notes=[*outcome.notes, lacking])
    again = "does that again" if left.started else "loads the application itself"
    ending = [pid for pid, _ in left.children]
    notes = [*outcome.notes, f"{what}, which would not survive a fork: each worker {again}"]
    return Outcome(None, notes, tainted=True, unsited=bool(left.started), children=ending)


def _of_children(wanted: links.Load, children: list[tuple[int, str]]) -> str:
    count = f"{len(children)} process{'es' if len(children) > 1 else ''}"
    named = ", ".join(what for _, what in children[:_NAMED])
    return f"loading {wanted.app} started {count}: {named}; as children of the zygote, once for all workers"
