"""Prepares what serves an application, by the convention that it is called with, and what watches its requests.

Serves nothing: `wsgi/` and `asgi/` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from srvd.errors import LoadFailed
from srvd.worker.app import interface
from srvd.worker.app.interface import Interface
from srvd.worker.observing import Observers, observe
from srvd.worker.wsgi import serving as wsgi

if TYPE_CHECKING:
    from srvd.log import Log
    from srvd.worker.boot import Boot, Preloaded
    from srvd.worker.context import Serving
    from srvd.worker.supervision.link import Link

__all__ = ["Prepared", "prepare"]


class Prepared(NamedTuple):
    serving: Serving
    observers: Observers


def prepare(boot: Boot, loaded: Preloaded, link: Link, log: Log) -> Prepared:
    settings, after, name = boot.settings, loaded.hooks.after_request, str(boot.id)
    if interface.of(loaded.app, settings.interface) is Interface.WSGI:
        if settings.engine == "gevent":
            return _greenlets(boot, loaded, link, log)
        loop = wsgi.make_loop(settings.threads)
        observers = observe(boot, after, wsgi.LOG_NAMES, link, loop, log)
        return Prepared(wsgi.prepare(loaded, settings, name, loop, observers.recorders, log), observers)
    if settings.engine == "gevent":
        raise LoadFailed(
            f'serve {settings.app}: it is an ASGI application, and engine = "gevent" is for those of WSGI',
            hint="take out `engine`: an ASGI application has its own loop; or load its WSGI side",
        )
    # Only here: a pool of WSGI does without asyncio.
    from srvd.worker.asgi import serving as asgi

    turned = asgi.make_loop()
    observers = observe(boot, after, asgi.LOG_NAMES, link, turned, log)
    return Prepared(asgi.prepare(loaded, settings, name, turned, observers.recorders, log), observers)


def _greenlets(boot: Boot, loaded: Preloaded, link: Link, log: Log) -> Prepared:
    from srvd.worker.gevent import serving as greenlets  # only here: a package that is not always installed

    loop = greenlets.make_loop()
    observers = observe(boot, loaded.hooks.after_request, wsgi.LOG_NAMES, link, loop, log)
    recorders = observers.recorders
    return Prepared(greenlets.prepare(loaded, boot.settings, str(boot.id), loop, recorders, log), observers)
