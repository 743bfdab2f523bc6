"""Performs the core's actions that concern the daemon itself: configuration, log, program, saved state, and end.

Makes no choice of its own. Actions about zygotes, workers and listeners are `children/performer.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from srvd.core.actions import Adopt, CheckProgram, Exit, Persist, ReadConfig, ReopenLog, ReplaceProgram
from srvd.core.events import Event, LogReopened
from srvd.core.model import Revision
from srvd.daemon.control.server import ControlServer
from srvd.daemon.dispatch.config_reader import ConfigReader
from srvd.daemon.dispatch.configs import Configs
from srvd.daemon.files import LogFile
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop
from srvd.daemon.recovery.saver import StateSaver
from srvd.daemon.upgrade.replace import Upgrade
from srvd.daemon.watch.monitors import Monitors
from srvd.errors import SrvdError
from srvd.log import Log

__all__ = ["Effects"]

Effect = ReadConfig | Adopt | ReopenLog | CheckProgram | ReplaceProgram | Persist | Exit


class Effects:
    """Of one daemon. `exit` is what it ends with, as soon as the core has said so."""

    def __init__(
        self,
        loop: Loop,
        configs: Configs,
        reader: ConfigReader,
        listeners: Listeners,
        control: ControlServer,
        monitors: Monitors,
        upgrade: Upgrade,
        saver: StateSaver,
        log_file: str,
        log_mode: str,
        log: Log,
        emit: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._configs = configs
        self._reader = reader
        self._listeners = listeners
        self._control = control
        self._monitors = monitors
        self._upgrade = upgrade
        self._saver = saver
        self._log_file = LogFile(log_file, log_mode)
        self._log = log
        self._emit = emit
        self.exit: Exit | None = None

    def perform(self, action: Effect) -> None:
        """Do it, or have it begun; what follows comes as an event."""
        match action:
            case ReadConfig(op):
                self._emit(self._reader.read(op))
            case Adopt(revisions):
                self._adopt(revisions)
            case ReopenLog():
                self._emit(LogReopened(self._reopen_log()))
            case CheckProgram(op):
                self._upgrade.check(op)
            case ReplaceProgram(op):
                self._upgrade.replace(op)
            case Persist():
                self._saver.save()
            case Exit():
                self._leave(action)
            case _ as never:
                assert_never(never)

    def drop(self, revision: Revision) -> None:
        """Nothing uses this configuration any more."""
        self._configs.drop(revision)

    def change(self) -> None:
        """What a next daemon has to know changes now."""
        self._saver.touch()

    def _adopt(self, revisions: tuple[Revision, ...]) -> None:
        self._configs.current = max(revisions)
        try:
            self._listeners.adopt(revisions)
            self._control.permit(self._configs.config.daemon.roles)
        except (SrvdError, OSError) as exc:
            self._log.error(f"adopt configuration {self._configs.current}: {exc}; the rest of it is in force")
        self._monitors.renew()

    def _reopen_log(self) -> str:
        """Why the log could not be opened anew; "" if it was."""
        try:
            self._log_file.open()
        except SrvdError as exc:
            return exc.message
        self._log.renew()  # what was a file may be a pipe now, on which a write could wait
        return ""

    def _leave(self, action: Exit) -> None:
        if self.exit is None:
            self.exit = action
            self._loop.stop()
