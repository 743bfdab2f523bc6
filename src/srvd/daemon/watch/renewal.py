"""Restores what other processes may remove under a running daemon: the paths of its sockets, the lock file of its
family, and listeners that one of its workers has shut down.

Checks at signals, reloads and upgrades, and when a listener has an event. Decides nothing about pools.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from srvd.config.settings import Config
from srvd.core.model import Actor, Kind, Order
from srvd.daemon.control.server import ControlServer
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.listener import BY_RELOAD
from srvd.daemon.listeners import Listeners
from srvd.errors import SrvdError
from srvd.log import Log

__all__ = ["Renewal"]

Submit = Callable[[Order, Actor], object]


class Renewal:
    def __init__(
        self, family_lock: FamilyLock, listeners: Listeners, submit: Submit, control: ControlServer, log: Log
    ) -> None:
        self._lock = family_lock
        self._listeners = listeners
        self._submit = submit
        self._control = control
        self._log = log
        self._asked: list[str] = []  # lost listeners for which a reload was ordered
        self._stuck: list[str] = []  # problems that a reload does not solve

    def look(self) -> None:
        """Check the control socket and the files beside it; make those anew that are gone."""
        lock = self._lock
        try:
            path = self._control.renew()
            if path:
                self._log.warning(f"the control socket {path}, or its lock, was gone; it was made anew")
            if lock.path and lock.is_held and not lock.is_stored and not lock.is_in_place:
                lock.renew()
                self._log.warning(
                    f"{lock.path} was gone; it was made anew. Should this daemon die, those that were started "
                    "before now are not found by the next one: `srvctl reload` starts others"
                )
        except SrvdError as exc:
            self._log.error(f"{exc.message}; this daemon goes on without it")

    def look_over(self) -> None:
        """Check the files and the listeners, after an upgrade."""
        self.look()
        self.reopen()

    def before(self, read: Callable[[], Config]) -> Config:
        """Check the files, and read the configuration for a reload that begins."""
        self.look()
        return read()

    def mend(self) -> None:
        """Let listeners that a process has shut down listen again; order a reload for those that need a new socket."""
        for address in self._listeners.mend():
            self._log.warning(f"{address} had been shut down by a process that has it; it listens again")
        self.reopen(shut=True)
        stuck = [
            f"{one['address']}: {one['problem']}; {one['remedy']}"
            for one in self._listeners.described()
            if one.get("remedy", BY_RELOAD) != BY_RELOAD
        ]
        if stuck != self._stuck:
            for text in stuck:
                self._log.error(text)
        self._stuck = stuck

    def reopen(self, *, shut: bool = False) -> None:
        """Order a reload if clients cannot reach a listener any more, once for each: workers need a new socket.

        `shut`: consider only listeners that a process has shut down.
        """
        lost = self._listeners.lost(shut=shut)
        if lost and lost != self._asked:
            self._log.warning(f"{', '.join(lost)}; a reload opens it anew")
            try:
                self._submit(Order(Kind.RELOAD), Actor(os.getuid(), os.getpid(), "srvd"))
            except SrvdError as exc:
                self._log.error(exc.message)
        self._asked = lost
