"""A worker from its loaded application to its exit: puts its parts together, reports READY, serves, reports BYE.

Loads nothing; `main.py` does. Each part says for itself what it does.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, NamedTuple

from srvd.linux import fds
from srvd.wire import links
from srvd.worker import forked
from srvd.worker.app import hooks
from srvd.worker.net.acceptor import Acceptor
from srvd.worker.observing import Observers, observe
from srvd.worker.supervision.commands import Commands
from srvd.worker.supervision.deadman import Deadman
from srvd.worker.supervision.link import Link
from srvd.worker.supervision.reconnect import Reconnector
from srvd.worker.tracebacks import format_traceback
from srvd.worker.wsgi import serving

if TYPE_CHECKING:
    from srvd.log import Log
    from srvd.worker.boot import Boot, Preloaded
    from srvd.worker.loop import Loop

__all__ = ["run"]


class _Parts(NamedTuple):
    """What is put together before READY."""

    commands: Commands
    serving: serving.Serving
    observers: Observers


def run(boot: Boot, loaded: Preloaded, link: Link, log: Log) -> int:
    """Serves until the daemon tells the worker to leave, and returns the exit code. Does not raise."""
    name, called = str(boot.id), loaded.hooks
    parts = _put_together(boot, loaded, link, log)
    hooks.call(called.on_worker_start, "on_worker_start", log, name)
    parts.serving.context.convention.variables = copy_context()
    if boot.warms:
        parts.commands.warm_up(lambda: _say_ready(boot, link))
    else:
        _say_ready(boot, link)
    try:
        parts.serving.run()
    except BaseException as exc:  # the process ends here
        log.error(f"a bug in the worker's loop; it ends\n{format_traceback(exc)}")
        return 70
    hooks.call(called.on_worker_stop, "on_worker_stop", log, name)
    if parts.observers.access is not None:
        parts.observers.access.close()
    link.say(links.Bye(), wait=True)
    return parts.commands.code


def _put_together(boot: Boot, loaded: Preloaded, link: Link, log: Log) -> _Parts:
    settings = boot.settings
    loop = serving.make_loop(settings.threads)
    observers = observe(boot, loaded.hooks.after_request, serving.LOG_NAMES, link, loop, log)
    served = serving.prepare(loaded, settings, str(boot.id), loop, observers.recorders, log)
    acceptor = Acceptor(served.context, served.connect, boot.listening, settings.max_connections)
    commands = Commands(
        served.context, acceptor, link, settings, observers.recycling, observers.access, _reconnector(boot, loop)
    )
    kinds = (*served.kinds, *observers.kinds, Link)
    forked.disown(lambda: (*boot.descriptors, *loop.descriptors()), kinds)
    return _Parts(commands, served, observers)


def _reconnector(boot: Boot, loop: Loop) -> Reconnector | None:
    """The way to another daemon; None if there is none."""
    deadman = Deadman(loop, boot.lifeline) if boot.lifeline >= 0 else None
    if boot.home is None or boot.settings.orphan_timeout <= 0:
        return None
    return Reconnector(loop, boot.home, boot.id, boot.settings.orphan_timeout, deadman)


def _say_ready(boot: Boot, link: Link) -> None:
    fds.kill_at_end(boot.link, on=False)
    link.say(links.Ready(), wait=True)
