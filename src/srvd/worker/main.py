"""Runs a worker from the fork to the exit: loads the application, and serves or reports why it cannot.

Forks nothing and sets up no process: the zygote has set user, group, stderr and title. `serving.py` serves.
"""

from __future__ import annotations

import faulthandler
import sys
from functools import partial

from srvd.errors import LoadFailed
from srvd.linux import fds
from srvd.log import Log
from srvd.wire import links
from srvd.worker import forked, serving
from srvd.worker.app import hooks
from srvd.worker.app.hooks import Hooks
from srvd.worker.app.interface import without_effect
from srvd.worker.app.releases import Watch
from srvd.worker.boot import Boot, Preloaded
from srvd.worker.supervision.link import Link

__all__ = ["serve"]

_STDERR = 2


def serve(boot: Boot) -> int:
    """Serves until the daemon tells the worker to leave, and returns the exit code. Does not raise: reports failures
    to the daemon.
    """
    faulthandler.enable(_STDERR)
    log = Log(_STDERR)
    link = Link(boot.link)
    # Until READY the worker runs foreign code that may never return, so the link is not read. Without this, the worker
    # would never end if the daemon died, or if the zygote ended before it reported this fork.
    fds.kill_at_end(boot.link)
    if boot.watch is not None:
        boot.watch.tell_to(lambda file: link.say(links.Mixed(file)))
    if boot.settings.engine == "gevent":
        from srvd.worker.gevent import serving as greenlets  # only here: a package that is not always installed

        greenlets.renew()
    try:
        if boot.watch is not None and boot.watch.watcher:
            return _develop(boot, boot.watch, link, log)
        with forked.guarded(lambda: boot.descriptors):
            loaded = _load(boot, log)
        return serving.run(boot, loaded, link, log)
    except LoadFailed as failed:
        fds.kill_at_end(boot.link, on=False)
        # The message stands in the last line, because reports quote the last line only.
        plain = f"hint: {failed.hint}\n{failed.message}" if failed.hint else failed.message
        text = str(failed.detail.get("traceback", plain))
        link.say(links.Failed(links.clip(failed.message), links.clip(text)), wait=True)
        return 1


def _develop(boot: Boot, watch: Watch, link: Link, log: Log) -> int:
    """As `serve`, under development. Raises `LoadFailed`."""
    from srvd.worker.develop import holding, terminal
    from srvd.worker.develop.loading import Development

    terminal.take_again()
    development = Development(watch.watcher, boot.id.pool, boot.settings.interface)
    with forked.guarded(lambda: boot.descriptors):
        load = partial(_load, boot, log)
        loaded = load() if isinstance(boot.application, Preloaded) else development.load(load)
    session = development.reporter.serve()
    watch.each = development.reporter.imported
    hold = None if session is None else partial(holding.attach, session)
    try:
        return serving.run(boot, loaded, link, log, hold)
    except LoadFailed as failed:
        return serving.run(boot, development.refused(failed), link, log, hold)


def _load(boot: Boot, log: Log) -> Preloaded:
    """Loads what is not preloaded, and calls `on_fork`. Raises `LoadFailed`."""
    loaded = boot.application
    if isinstance(loaded, Preloaded):
        hooks.call(loaded.hooks.on_fork, "on_fork", log, str(boot.id))
        return loaded
    if sys.flags.no_site:  # left to each worker, see `zygote/renewal.py`
        import site

        site.main()
    early = _load_hooks(boot, log) if boot.settings.hooks_first else None
    app = loaded()
    for note in without_effect(app, boot.settings.interface, boot.settings.threads, boot.settings.root_path):
        log.warning(note)
    return Preloaded(app, early or _load_hooks(boot, log))


def _load_hooks(boot: Boot, log: Log) -> Hooks:
    """Loads the hooks of a worker that loads its application itself, and calls `on_fork`. Raises `LoadFailed`."""
    found, warnings = hooks.load(boot.settings.hooks)
    for warning in warnings:
        log.warning(warning)
    hooks.call(found.on_fork, "on_fork", log, str(boot.id))
    return found
