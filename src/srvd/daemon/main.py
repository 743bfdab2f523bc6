"""The daemon's lifetimes: what begins when, what runs until when, and what is closed at which end.

Makes nothing (`assembly.py`, `rebuild.py`), decides nothing about pools (core/) and performs nothing (children/).
"""

from __future__ import annotations

import os
import time

from srvd import __version__
from srvd.core.events import ProgramReplaced
from srvd.core.model import Fault, Kind, OpState
from srvd.daemon.components import Foundation
from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.server import ControlServer
from srvd.daemon.dispatch.dispatcher import Dispatcher
from srvd.daemon.dispatch.effects import Effects
from srvd.daemon.files import Pidfile
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.recovery.saver import StateSaver
from srvd.daemon.signals import Signals, hold
from srvd.daemon.upgrade.replace import Upgrade
from srvd.daemon.upgrade.source_archive import is_archive
from srvd.daemon.watch.monitors import Monitors
from srvd.daemon.watch.renewal import Renewal
from srvd.linux.processes.prctl import become_subreaper
from srvd.linux.processes.proctitle import set_title

__all__ = ["Daemon"]

KEEP_AFTER = 2.0
"""Seconds until the daemon's own source is kept: it takes milliseconds, and a start counts them."""


class Daemon:
    """Of one program: from a start, or from the state of a former program or daemon, to its end."""

    def __init__(
        self,
        base: Foundation,
        dispatcher: Dispatcher,
        effects: Effects,
        backend: DaemonBackend,
        control: ControlServer,
        monitors: Monitors,
        late_callers: LateCallers,
        saver: StateSaver,
        upgrade: Upgrade,
        renewal: Renewal,
    ) -> None:
        self.base = base
        self.dispatcher = dispatcher
        self.backend = backend
        self.control = control
        self.late_callers = late_callers
        self.renewal = renewal
        self._effects = effects
        self._monitors = monitors
        self._saver = saver
        self._upgrade = upgrade
        self._pidfile = Pidfile(base.settings.pidfile)
        self._born = time.time()

    # -- a start ---------------------------------------------------------------------------------------------------

    def open(self, preconditions: Preconditions) -> None:
        """Clients can connect, and wait. Raises `SystemRefused`."""
        become_subreaper()
        log = self.base.parts.log
        self.control.serve(preconditions.claim, preconditions.roles)
        self._pidfile.write()
        log.info(preconditions.claim.description)
        if not preconditions.roles.of(os.geteuid(), []):
            log.warning(f"uid {os.geteuid()} is nobody's in this user namespace: only root can use srvctl")

    def attach(self) -> None:
        """From here on it lives: timers, readers, signals."""
        self._attach()
        self._handle_signals()
        self.base.in_order = True

    # -- an upgrade ------------------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Everything but what cannot be undone: nobody outside has noticed anything when this returns, or raises."""
        become_subreaper()
        hold()
        set_title(f"srvd: daemon {self.base.settings.name}")
        self._attach()

    def go_on(self, former: str, fault: Fault | None) -> int:
        """Be the daemon, up to the end; the exit code. `fault`: why it is not the new program that does."""
        base = self.base
        base.parts.log.info(f"srvd {__version__} goes on as the daemon that srvd {former} was, pid {os.getpid()}")
        base.in_order = False  # until it has begun
        try:
            self.dispatcher.begin()
            for op in base.parts.core.house.open_operations:
                if op.order.kind is Kind.UPGRADE and op.state is OpState.COMMITTING:
                    base.queue.put(ProgramReplaced(op.id, fault))
            self.renewal.look_over()
            self._handle_signals()
            base.in_order = True
            return self.turn()
        finally:
            base.close()

    # -- both ------------------------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """From here on timers and readers live."""
        loop = self.base.loop
        self.base.notifier.attach(loop)
        self._monitors.attach(loop)
        self._saver.attach(loop)

    def _handle_signals(self) -> None:
        base = self.base
        Signals(base.parts.core.house, self.backend, self.renewal.look, base.parts.log).attach(
            base.loop, base.performer.reap_strangers, self._before_restart
        )

    def _before_restart(self) -> None:
        """What systemd keeps for the next daemon stays open to clients."""
        self.base.parts.listeners.hand_over(self.base.notifier.stored)

    def turn(self) -> int:
        """Be the daemon, up to the end; the exit code."""
        base, parts = self.base, self.base.parts
        if not is_archive(parts.program.folder):  # else this is the former program, and it is all there is of it
            parts.source_archive.empty()
            base.loop.call_later(KEEP_AFTER, parts.source_archive.fill, parts.program.folder, self._born)
        try:
            base.loop.run()
        except BaseException:
            base.in_order = False
            raise
        finally:  # left open on purpose: their end of file is the process's end, for whoever waits for the stop
            _left_open = self.close()
        end = self._effects.exit
        assert end is not None
        base.performer.leftovers.end(parts.log.info)
        base.announcer.ended(end)
        return end.code

    def close(self) -> list[int]:
        """Give up what clients, the next daemon and init scripts find; the descriptors that only the exit closes."""
        self._monitors.close()
        self._upgrade.close()
        self._saver.close(remove=self.base.in_order)  # before the path is given up: it is beside it
        self.late_callers.close()
        left_open = self.control.close("the daemon has stopped")
        self._pidfile.remove()
        return left_open
