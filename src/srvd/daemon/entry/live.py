"""Runs a start whose parts are made: starts the first zygotes, and makes the rest of the daemon meanwhile.

Does not search for orphans and takes no locks: `start.py` has done both.
"""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING

from srvd import __version__
from srvd.config.settings import Config
from srvd.daemon.entry.first_zygotes import start_zygotes
from srvd.daemon.foundation import Foundation
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.signals import hold
from srvd.errors import SrvdError
from srvd.linux import interpreter
from srvd.linux.processes.proctitle import set_title

if TYPE_CHECKING:
    from srvd.daemon.main import Daemon
    from srvd.daemon.recovery.recover import Found

__all__ = ["live"]


def live(base: Foundation, config: Config, preconditions: Preconditions, found: Found | None) -> int:
    """Run the daemon from the first zygote to the end. Returns the exit code of `srvd`."""
    hold()
    set_title(f"srvd: daemon {base.settings.name}")
    log, began = base.parts.log, time.monotonic()
    log.info(f"srvd {__version__} starts, pid {os.getpid()}" + (f", by {config.path}" if config.path else ""))
    for warning in config.warnings:
        log.warning(warning)
    adopts = found is not None and found.adoption is not None
    try:
        first = [] if adopts else start_zygotes(base, config)
        daemon = _complete(base, began)
        if adopts:
            base.in_order = False  # until the adoption is done: after a failure another daemon can adopt the workers
            log.warning("the daemon before this one has died; its zygotes, workers and listeners are adopted")
        interpreter.discard()
        daemon.dispatcher.perform(first)
        try:
            _open(daemon, config, preconditions, found)
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


def _complete(base: Foundation, began: float) -> Daemon:
    """Import and make the rest of the daemon, while the first zygotes load the application.

    All of it is imported now and not when needed, because an installer may put another version on disk before that.
    """
    from srvd.daemon.assembly import compose

    daemon = compose(base, began)
    gc.freeze()  # what has been imported stays: no collection looks at it
    gc.enable()
    return daemon


def _open(daemon: Daemon, config: Config, preconditions: Preconditions, found: Found | None) -> None:
    """Let clients and events in; go on with the family of a daemon that died, if one was found."""
    adoption = None if found is None else found.adoption
    daemon.open(preconditions)
    if adoption is None:
        daemon.dispatcher.begin()
    else:
        from srvd.daemon.entry.succeed import succeed  # imported here: seldom needed, and would delay every start

        succeed(daemon, adoption, config)
    if found is not None and found.calls is not None:
        daemon.late_callers.hear(found.calls, found.rejects)
    daemon.attach()
    daemon.handle_signals()
    if adoption is not None:
        daemon.base.announcer.ready()
