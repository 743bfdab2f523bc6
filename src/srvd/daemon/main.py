"""Runs the daemon: starts its parts in order, runs the loop, and closes the parts at the end.

Makes no parts (`assembly.py`), decides nothing about pools (core/) and performs no actions (children/).
"""

from __future__ import annotations

import os
import time

from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.server import ControlServer
from srvd.daemon.dispatch.dispatcher import Dispatcher
from srvd.daemon.dispatch.effects import Effects
from srvd.daemon.files import Pidfile
from srvd.daemon.foundation import Foundation
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.recovery.saver import StateSaver
from srvd.daemon.signals import Signals
from srvd.daemon.upgrade.replace import Upgrade
from srvd.daemon.upgrade.source_archive import is_archive
from srvd.daemon.watch.monitors import Monitors
from srvd.daemon.watch.renewal import Renewal
from srvd.linux.processes.prctl import become_subreaper

__all__ = ["Daemon"]

KEEP_AFTER = 2.0
"""Seconds until the daemon's own source is archived: this takes milliseconds, and would delay the start."""


class Daemon:
    """The daemon in one program: from a start, or from the state of a former program or daemon, to its end."""

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

    def open(self, preconditions: Preconditions) -> None:
        """Open the control socket and write the pidfile: clients can connect, and wait. Raises `SystemRefused`."""
        become_subreaper()
        log = self.base.parts.log
        self.control.serve(preconditions.control_socket, preconditions.roles)
        self._pidfile.write()
        log.info(preconditions.control_socket.description)
        if not preconditions.roles.of(os.geteuid(), []):
            log.warning(f"uid {os.geteuid()} is nobody's in this user namespace: only root can use srvctl")

    def attach(self) -> None:
        """Start timers and readers. This can be undone: it has no effect outside of this process."""
        loop = self.base.loop
        self.base.notifier.attach(loop)
        self._monitors.attach(loop)
        self._saver.attach(loop)

    def handle_signals(self) -> None:
        """Handle signals, beginning with those that have come; from now on the daemon ends in good order."""
        base = self.base
        Signals(base.parts.core.state, self.backend.submit, self.renewal.look, base.parts.log).attach(
            base.loop, base.performer.processes.reap, self._before_restart
        )
        base.in_order = True

    def _before_restart(self) -> None:
        """Leave the listeners in systemd's store open to clients, for the next daemon."""
        self.base.parts.listeners.hand_over(self.base.notifier.stored)

    def turn(self) -> int:
        """Run the loop until the daemon ends. Returns the exit code."""
        base, parts = self.base, self.base.parts
        if not is_archive(parts.program.folder):  # otherwise this program runs from the archive, its only copy
            parts.source_archive.empty()
            base.loop.call_later(KEEP_AFTER, parts.source_archive.fill, parts.program.folder, self._born)
        try:
            base.loop.run()
        except BaseException:
            base.in_order = False
            raise
        finally:  # left open on purpose: to clients that wait for the stop, end of file means the end of the process
            _left_open = self.close()
        end = self._effects.exit
        assert end is not None
        base.performer.processes.leftovers.end(parts.log.info)
        base.announcer.ended(end)
        return end.code

    def close(self) -> list[int]:
        """Remove what clients, the next daemon and init scripts find. Returns descriptors that only the exit closes."""
        self._monitors.close()
        self._upgrade.close()
        self._saver.close(remove=self.base.in_order)  # while this process has the socket path: the files are beside it
        self.late_callers.close()
        left_open = self.control.close("the daemon has stopped")
        self._pidfile.remove()
        return left_open
