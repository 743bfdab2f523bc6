"""Opens the listeners of a new daemon and starts its first zygotes, before the rest of the daemon is imported.

Waits for no zygote. Not called when the processes of a daemon that died are adopted: they have listeners and zygotes.
"""

from __future__ import annotations

import os
import time

from srvd.config.pool_spec import spec_of
from srvd.config.settings import Config
from srvd.core.actions import Action
from srvd.core.events import Started
from srvd.core.model import Actor, Revision
from srvd.daemon.foundation import Foundation
from srvd.daemon.listeners import Listeners, named
from srvd.errors import SrvdError
from srvd.log import Log

__all__ = ["start_zygotes"]

FIRST = Revision(1)

BUSY_PATIENCE = 5.0
"""Seconds for which a start retries an address that is in use."""

_BUSY_PAUSE = 0.1


def start_zygotes(base: Foundation, config: Config) -> list[Action]:
    """Open the listeners and start the zygotes. Returns the other actions of the core. Raises `SystemRefused`."""
    for warning in _prepare(base.parts.listeners, config, base.parts.log):
        base.parts.log.warning(warning)
    base.configs.restore({FIRST: config}, FIRST)
    for line in base.parts.listeners.announced():
        base.parts.log.info(line)
    actor = Actor(os.getuid(), os.getpid(), "srvd start")
    return base.start(Started(FIRST, tuple(map(spec_of, config.pools.values())), actor))


def _prepare(listeners: Listeners, config: Config, log: Log) -> list[str]:
    """Open the listeners. Returns warnings. Raises `SystemRefused`.

    Retries an address in use for `BUSY_PATIENCE`: its owner, such as the server that this one replaces, may be ending.
    """
    until = time.monotonic() + BUSY_PATIENCE
    told = False
    while True:
        try:
            return listeners.prepare(FIRST, config.listeners)
        except SrvdError as exc:
            if not exc.detail.get("busy") or time.monotonic() >= until:
                raise named(exc) from exc
            if not told:
                log.warning(f"{exc.detail['busy']} is taken; trying for {BUSY_PATIENCE:g} s")
            told = True
            time.sleep(_BUSY_PAUSE)
