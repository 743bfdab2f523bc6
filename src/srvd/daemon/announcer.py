"""Reports the daemon's state without being asked: to the command that started it, its terminal, the service manager.

Decides nothing: the state is the core's.
"""

from __future__ import annotations

from collections.abc import Mapping

from srvd.config.settings import DaemonSettings
from srvd.core.actions import Exit
from srvd.core.model import Level, OpId, OpState
from srvd.core.state.model import SupervisorState
from srvd.daemon import detach
from srvd.daemon.detach import StartReport
from srvd.daemon.dispatch.configs import Configs
from srvd.daemon.listeners import Listeners
from srvd.daemon.systemd_notifier import SystemdNotifier
from srvd.errors import EXIT
from srvd.log import Log

__all__ = ["Announcer"]


class Announcer:
    """The announcements of one daemon in one program. `report`: to the command that waits for the start, if any."""

    def __init__(
        self,
        settings: DaemonSettings,
        state: SupervisorState,
        configs: Configs,
        listeners: Listeners,
        notifier: SystemdNotifier,
        report: StartReport,
        log: Log,
        *,
        daemonized: bool,
    ) -> None:
        self._settings = settings
        self._state = state
        self._configs = configs
        self._listeners = listeners
        self._notifier = notifier
        self._report = report
        self._log = log
        self.daemonized = daemonized

    def note(self, level: Level, text: str, fields: Mapping[str, object]) -> None:
        """Write a line of the control socket to the log."""
        self._log.write(level.value, text, tuple((name, str(value)) for name, value in fields.items()))

    def look(self) -> None:
        """Tell the service manager about changes."""
        self._notifier.look()

    def started(self) -> None:
        """Announce the end of the start, successful or not."""
        start = self._state.operations[OpId(1)]
        if start.state is OpState.DONE:
            self.ready()
        elif self._state.doomed is None and self._state.stop is None:
            message = start.fault.message if start.fault is not None else ""
            self.ready(f"{message}; the daemon runs on")
        # In all other cases the daemon ends, and `ended` reports why.

    def ready(self, problem: str = "") -> None:
        """Tell the command that waits for the start. `problem`: what went wrong while the daemon runs on."""
        if self.daemonized:
            detach.leave_terminal()
            self._log.renew()  # the log would go on writing to the terminal
        if problem:
            self._report.failed(EXIT.CHANGED, problem, "srvctl why")
            return
        urls = self._listeners.urls(self._configs.config.tls)
        detach.say_where(self._log, urls)
        self._report.ready(detach.greeting(self._settings, urls))

    def refused(self, message: str) -> None:
        """Announce that the system denies what the daemon needs. A start in the foreground reports that by itself."""
        if self.daemonized and self._settings.log_file:
            self._log.error(message)
        self._notifier.despair(message)

    def ended(self, end: Exit) -> None:
        """Announce the orderly end of the daemon."""
        if end.code == EXIT.DONE:
            self._log.info("stopped")
            self._report.failed(EXIT.FAILED, "the daemon was asked to stop before it was ready")
            return
        if not self.daemonized or self._settings.log_file:  # otherwise the report appears in the same place
            self._log.error(f"never came up: {end.text}")
        self._report.failed(end.code, end.text)
