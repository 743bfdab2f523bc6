"""Runs a start whose parts are made: opens listeners, starts zygotes, and makes the rest of the daemon meanwhile.

Does not search for orphans and takes no locks: `start.py` has done both.
"""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING

from srvd import __version__
from srvd.config.pool_spec import spec_of
from srvd.config.settings import Config
from srvd.config.source import Source
from srvd.core.actions import Action
from srvd.core.events import Started
from srvd.core.model import Actor, Kind, Order, Revision
from srvd.daemon.components import Foundation
from srvd.daemon.listeners import Listeners, named
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.signals import hold
from srvd.errors import SrvdError
from srvd.linux import interpreter
from srvd.linux.processes.proctitle import set_title
from srvd.log import Log

if TYPE_CHECKING:
    from srvd.daemon.main import Daemon
    from srvd.daemon.recovery.adopt import Adoption
    from srvd.daemon.recovery.recover import Found

__all__ = ["live"]

FIRST = Revision(1)

BUSY_PATIENCE = 5.0
"""Seconds for which a start retries an address that is in use."""

_BUSY_PAUSE = 0.1


def live(base: Foundation, config: Config, source: Source, preconditions: Preconditions, found: Found | None) -> int:
    """Run the daemon from the first zygote to the end. Returns the exit code of `srvd`."""
    hold()
    set_title(f"srvd: daemon {base.settings.name}")
    log, began = base.parts.log, time.monotonic()
    log.info(f"srvd {__version__} starts, pid {os.getpid()}" + (f", by {config.path}" if config.path else ""))
    for warning in config.warnings:
        log.warning(warning)
    adoption = None if found is None else found.adoption
    try:
        first = _start(base, config) if adoption is None else []
        # Imported here: the first zygotes load the application meanwhile. All of it is imported now and not when
        # needed, because an installer may put another version on disk before an upgrade.
        from srvd.daemon.assembly import compose

        daemon = compose(base, source, began)
        gc.freeze()  # what has been imported stays: no collection looks at it
        gc.enable()
        if adoption is not None:
            base.in_order = False  # until the adoption is done: after a failure another daemon can adopt the workers
            log.warning("the daemon before this one has died; its zygotes, workers and listeners are adopted")
        interpreter.discard()
        daemon.dispatcher.perform(first)
        try:
            daemon.open(preconditions)
            if adoption is None:
                daemon.dispatcher.begin()
            else:
                _adopt(daemon, adoption, config)
            if found is not None and found.calls is not None:
                daemon.late_callers.hear(found.calls, found.rejects)
            daemon.attach()
            if adoption is not None:
                base.announcer.ready()
        except BaseException:
            daemon.close()
            raise
        return daemon.turn()
    except SrvdError as exc:
        base.announcer.refused(exc.message)
        raise
    except Exception:
        base.in_order = False
        raise
    finally:
        base.close()


def _start(base: Foundation, config: Config) -> list[Action]:
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


def _adopt(daemon: Daemon, adoption: Adoption, config: Config) -> None:
    """Adopt the family of a daemon that died; order a reload if that daemon had another configuration."""
    from srvd.daemon.rebuild import adopt  # imported here: seldom needed, and the import would delay every start

    if adopt(daemon, adoption, config):
        daemon.backend.submit(Order(Kind.RELOAD), Actor(os.getuid(), os.getpid(), "srvd start"))
    daemon.renewal.reopen()
