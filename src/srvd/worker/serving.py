"""A worker from its loaded application to its exit: puts its parts together, reports READY, serves, reports BYE.

Loads nothing; `main.py` does. Each part says for itself what it does.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING

from srvd.linux import fds
from srvd.wire import links
from srvd.worker import conventions, forked
from srvd.worker.app import hooks
from srvd.worker.net.acceptor import Acceptor
from srvd.worker.supervision.commands import Commands
from srvd.worker.supervision.deadman import Deadman
from srvd.worker.supervision.link import Link
from srvd.worker.supervision.reconnect import Reconnector
from srvd.worker.tracebacks import format_traceback

if TYPE_CHECKING:
    from collections.abc import Callable

    from srvd.log import Log
    from srvd.worker.boot import Boot, Preloaded
    from srvd.worker.conventions import Prepared
    from srvd.worker.loop import Loop

    Hold = Callable[[Loop, Commands], None]

__all__ = ["run"]


def run(boot: Boot, loaded: Preloaded, link: Link, log: Log, hold: Hold | None = None) -> int:
    """Serves until the daemon tells the worker to leave, and returns the exit code. Raises `LoadFailed` if the
    application does not start. `hold`: makes a pool under development obey its watcher.
    """
    name, called = str(boot.id), loaded.hooks
    serving, observers = prepared = conventions.prepare(boot, loaded, link, log)
    commands = _put_together(boot, prepared, link)
    if hold is not None:
        hold(serving.context.loop, commands)
    hooks.call(called.on_worker_start, "on_worker_start", log, name)
    serving.context.convention.variables = copy_context()
    serving.start()
    if boot.warms:
        commands.warm_up(lambda: _say_ready(boot, link))
    else:
        _say_ready(boot, link)
    try:
        serving.run()
    except BaseException as exc:  # the process ends here
        log.error(f"a bug in the worker's loop; it ends\n{format_traceback(exc)}")
        return 70
    hooks.call(called.on_worker_stop, "on_worker_stop", log, name)
    if observers.access is not None:
        observers.access.close()
    link.say(links.Bye(), wait=True)
    return commands.code


def _put_together(boot: Boot, prepared: Prepared, link: Link) -> Commands:
    (context, connect, *_), observers = prepared
    acceptor = Acceptor(context, connect, boot.listening, boot.settings.max_connections)
    reconnector = _reconnector(boot, context.loop)
    kinds = (*prepared.serving.kinds, *observers.kinds, Link)
    forked.disown(lambda: (*boot.descriptors, *context.loop.descriptors()), kinds)
    return Commands(context, acceptor, link, boot.settings, observers.recycling, observers.access, reconnector)


def _reconnector(boot: Boot, loop: Loop) -> Reconnector | None:
    """The way to another daemon; None if there is none."""
    deadman = Deadman(loop, boot.lifeline) if boot.lifeline >= 0 else None
    if boot.home is None or boot.settings.orphan_timeout <= 0:
        return None
    return Reconnector(loop, boot.home, boot.id, boot.settings.orphan_timeout, deadman)


def _say_ready(boot: Boot, link: Link) -> None:
    fds.kill_at_end(boot.link, on=False)
    link.say(links.Ready(), wait=True)
