"""Tells the service manager the daemon's state: once for each change, and in between only that the loop turns.

Decides nothing: `core/status/summary.py` makes the sentences, `linux/systemd.py` the format. Does nothing without a
service manager that listens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from srvd.core.state.model import SupervisorState
from srvd.core.status.summary import Bulletin, Condition, bulletin
from srvd.daemon.loop import Timer
from srvd.errors import ConfigInvalid
from srvd.linux.systemd import NotifySocket, Unit, clip
from srvd.log import escape

__all__ = ["SystemdNotifier"]

BEAT = 10.0
"""Seconds between two messages that a change under way goes on."""

EXTENSION = 30.0
"""Seconds within which the next message is promised. The manager then notices a loop that has stopped turning, and
does not end a daemon with a slow change."""

RETRY = 0.25
"""Seconds until another try when the manager's queue was full."""


class Loop(Protocol):
    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class SystemdNotifier:
    """Sends messages to the service manager. `look` runs after each turn of the core; a timer repeats failed sends."""

    def __init__(
        self, unit: Unit, state: SupervisorState, to_store: Callable[[], Mapping[str, int]], warn: Callable[[str], None]
    ) -> None:
        """`to_store`: returns the descriptors that the manager should keep, by their names in its store."""
        self._unit = unit
        self._state = state
        self._to_store = to_store
        self._warn = warn
        self._socket = self._open()
        self._told: Bulletin | None = None
        self._stored = set(unit.stored())
        self._late = False  # a message could not be sent
        self._unheard = False  # the warning was given that the manager does not listen
        self._scarce = False  # the warning was given that the store is too small
        self._loop: Loop | None = None
        self._beat_timer: Timer | None = None

    @property
    def stored(self) -> set[str]:
        """The names of the descriptors that are in the manager's store."""
        return set(self._stored)

    def restore(self, stored: Iterable[str]) -> None:
        """Restore the names in the store after an upgrade. The next `look` sends the state again."""
        self._stored = set(stored)

    def look(self) -> None:
        """Send the state if it has changed, and update the store."""
        if self._socket is None:
            return
        self._late = False
        now = bulletin(self._state)
        if now != self._told and self._send(self._lines(now)):
            self._told = now
        self._store()
        self._arm(now)

    def attach(self, loop: Loop) -> None:
        """Start the timers."""
        self._loop = loop
        if self._socket is not None and self._unit.watchdog:
            self._turn()

    def despair(self, sentence: str) -> None:
        """Send an error that ends the daemon before there was a state to send."""
        self._send([_status(f"could not start: {sentence}"), "STOPPING=1"])

    def close(self) -> None:
        """Send nothing more; the manager keeps the descriptors that are still wanted."""
        self._take_out()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> NotifySocket | None:
        if not self._unit.notify:
            return None
        try:
            return NotifySocket(self._unit.notify)
        except (ConfigInvalid, OSError) as exc:
            self._warn(f"{exc}; the service manager is told nothing")
            return None

    def _lines(self, now: Bulletin) -> list[str]:
        lines = []
        if self._told is None or now.condition is not self._told.condition:
            match now.condition:
                case Condition.READY:
                    # With the pid: after --daemonize it is not that of the process that was started.
                    lines = ["READY=1", f"MAINPID={os.getpid()}"]
                case Condition.RELOADING:
                    lines = ["RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"]
                case Condition.STOPPING:
                    lines = ["STOPPING=1"]
            if not now.is_lasting:
                lines.append(_extension())
        return [*lines, _status(now.sentence)]

    def _take_out(self) -> Mapping[str, int]:
        """Remove descriptors from the store that are not wanted any more. Returns the wanted ones."""
        wanted = self._to_store() if self._unit.store else {}
        for name in self._stored - wanted.keys():
            if self._send(["FDSTOREREMOVE=1", f"FDNAME={name}"]):
                self._stored.discard(name)
        return wanted

    def _store(self) -> None:
        wanted = self._take_out()
        if len(wanted) > self._unit.store > 0 and not self._scarce:
            self._scarce = True
            self._warn(
                f"the service manager's store takes {self._unit.store} of {len(wanted)} descriptors, listeners first: "
                "those without a place are closed over a restart, and a state without one is in its file only; "
                "FileDescriptorStoreMax= and FDSTORE of the unit say how many"
            )
        for name, fd in wanted.items():
            room = name not in self._stored and len(self._stored) < self._unit.store
            if room and self._send(["FDSTORE=1", f"FDNAME={name}"], fd):
                self._stored.add(name)

    # -- time --------------------------------------------------------------------------------------------------------

    def _arm(self, now: Bulletin) -> None:
        """Set the timer if a change is under way, or a message could not be sent; clear it otherwise."""
        if self._loop is None or (self._beat_timer is not None and not now.is_lasting and not self._late):
            return
        if self._beat_timer is not None:
            self._beat_timer.cancel()
            self._beat_timer = None
        if self._late or not now.is_lasting:
            self._beat_timer = self._loop.call_later(RETRY if self._late else BEAT, self._beat)

    def _beat(self) -> None:
        self._beat_timer = None
        if self._told is not None and not self._told.is_lasting:
            self._send([_extension()])
        self.look()

    def beat(self) -> int:
        """Send that the loop turns. Returns for how many seconds it may stand still now, with a margin; 0: no limit."""
        if self._unit.watchdog:
            self._send(["WATCHDOG=1"])
        return max(1, int(self._unit.watchdog * 0.6)) if self._unit.watchdog else 0

    def _turn(self) -> None:
        """Send the watchdog message, by a timer of the loop and nothing else, so that a stuck loop sends none."""
        self.beat()
        if self._loop is not None and self._socket is not None:
            self._loop.call_later(self._unit.watchdog / 2, self._turn)

    def _send(self, lines: list[str], fd: int | None = None) -> bool:
        if self._socket is None:
            return False
        try:
            sent = self._socket.send(lines, () if fd is None else (fd,))
        except OSError as exc:
            if not self._unheard:
                why = f"{exc.strerror}; it is told the next time that something changes"
                self._warn(f"tell the service manager at {self._unit.notify}: {why}")
            self._unheard = True
            return False
        self._unheard = False
        self._late = self._late or not sent
        return sent


def _status(sentence: str) -> str:
    return f"STATUS={clip(escape(sentence))}"


def _extension() -> str:
    return f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}"
