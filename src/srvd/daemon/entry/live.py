"""A start, once its parts are there: listeners are opened, zygotes started, and the rest of the daemon made meanwhile.

Finds nobody and claims nothing: `start.py` has done that.
"""

from __future__ import annotations

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
"""Seconds for which a start tries an address that is in use."""

_BUSY_PAUSE = 0.1


def live(base: Foundation, config: Config, source: Source, preconditions: Preconditions, found: Found | None) -> int:
    """From the first zygote to the end; the exit code."""
    hold()
    set_title(f"srvd: daemon {base.settings.name}")
    log, began = base.parts.log, time.monotonic()
    log.info(f"srvd {__version__} starts, pid {os.getpid()}" + (f", by {config.path}" if config.path else ""))
    for warning in config.warnings:
        log.warning(warning)
    adoption = None if found is None else found.adoption
    try:
        first = _start(base, config) if adoption is None else []
        # Here, not above: the first zygotes load the application while this is imported. Not later either: what is on
        # disk when an upgrade is asked for is another version of it.
        from srvd.daemon.assembly import compose

        daemon = compose(base, source, began)
        if adoption is not None:
            base.in_order = False  # until it has begun: its workers are better off with another daemon
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
    """Open the listeners and start the zygotes. Returns what else the core wants done. Raises `SystemRefused`."""
    for warning in _prepare(base.parts.listeners, config, base.parts.log):
        base.parts.log.warning(warning)
    base.configs.restore({FIRST: config}, FIRST)
    for line in base.parts.listeners.announced():
        base.parts.log.info(line)
    actor = Actor(os.getuid(), os.getpid(), "srvd start")
    return base.start(Started(FIRST, tuple(map(spec_of, config.pools.values())), actor))


def _prepare(listeners: Listeners, config: Config, log: Log) -> list[str]:
    """Open the listeners; warnings. Raises `SystemRefused`.

    A process that has an address may be about to end, as the server that this one follows: it is tried for a while.
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
    """Go on with the family of a daemon that died; reload if it had another configuration."""
    from srvd.daemon.rebuild import adopt  # daemons seldom die, and every start would wait for it

    if adopt(daemon, adoption, config):
        daemon.backend.submit(Order(Kind.RELOAD), Actor(os.getuid(), os.getpid(), "srvd start"))
    daemon.renewal.reopen()
