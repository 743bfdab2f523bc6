"""Lets a new daemon go on with the zygotes and workers of one that died.

Imported only in this case. Finds no process: `recovery/adopt.py` has.
"""

from __future__ import annotations

import os

from srvd.config.settings import Config
from srvd.core.events import ZygoteGone
from srvd.core.model import Actor, Kind, Order
from srvd.daemon.entry.rebuild import restore
from srvd.daemon.main import Daemon
from srvd.daemon.recovery.adopt import Adoption
from srvd.daemon.recovery.envelope import sums

__all__ = ["succeed"]


def succeed(daemon: Daemon, adoption: Adoption, fresh: Config) -> None:
    """Restore the state, tell the core which of the processes live, and order a reload if the configuration has
    changed.

    fresh: the configuration as it is now. Raises `Unsupported`, `OSError`: no process has received an order.
    """
    shell = adoption.found.shell
    former = shell.configs[shell.current]
    configs = {revision: _with_keys(one, fresh) for revision, one in shell.configs.items()}
    restore(daemon.base, shell._replace(configs=configs), adoption.table)
    _begin(daemon, adoption)
    if (former.pools, former.listeners, adoption.sums) != (fresh.pools, fresh.listeners, sums(fresh)):
        daemon.backend.submit(Order(Kind.RELOAD), Actor(os.getuid(), os.getpid(), "srvd start"))
    daemon.renewal.reopen()


def _begin(daemon: Daemon, adoption: Adoption) -> None:
    """Handle the events that tell which processes live."""
    daemon.dispatcher.begin()
    processes = daemon.base.performer.processes
    processes.greet()
    for event in adoption.events:
        if isinstance(event, ZygoteGone):
            processes.workers.zygote_gone(event.generation)
    for event in adoption.events:
        daemon.base.queue.put(event)


def _with_keys(config: Config, fresh: Config) -> Config:
    """Return a configuration of the state with the daemon's settings from `fresh`, and with its keys for all listeners
    that are the same.
    """
    same = {name for name, one in fresh.listeners.items() if config.listeners.get(name) == one}
    return config._replace(daemon=fresh.daemon, tls={name: one for name, one in fresh.tls.items() if name in same})
