"""Waits for the calls of a dead daemon's family, until all is here that the next daemon needs.

Gives no order, and adopts no process (`adopt.py` does): whatever the wait comes to, the family is as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from srvd.daemon.family.callers import Calls, Orphan, SharedFds
from srvd.daemon.recovery.envelope import mark_of
from srvd.daemon.recovery.former import Former
from srvd.daemon.recovery.rejects import CALLS, LATEST
from srvd.errors import SystemRefused
from srvd.linux import fds
from srvd.linux.processes import process
from srvd.linux.scoreboard import size_of

__all__ = ["Gathering"]

MOST = 1024
"""Limit of unknown callers that are kept until the search is over: a malicious worker could call without end."""


class Gathering:
    """The callers: known members in `heard`, others in `strangers`, and in `shared` what the members have in common.

    Owns all their descriptors, and those of `former`, until `close`.
    """

    def __init__(self, former: Former) -> None:
        self.former = former
        self.heard: list[Orphan] = []
        self.strangers: list[Orphan] = []
        self.shared = SharedFds()

    def wait(self, calls: Calls, say: Callable[[str], None]) -> None:
        """Wait until all living members have called, or only busy ones are missing and no shared descriptor is.

        A member that dies meanwhile stays in `former.alive`: the new daemon handles its end like any other. `say`:
        called when the wait becomes long. Raises `SystemRefused`: members live, but do not bring what is needed.
        """
        alive = self.former.alive
        began = time.monotonic()
        told = False
        while True:
            came = {orphan.id for orphan in self.heard}
            missing = [member for member, one in alive.items() if member not in came and not process.is_over(one.pidfd)]
            lacking = self._lacking()
            passed = time.monotonic() - began
            if not missing or (passed > CALLS and not lacking):
                return
            if passed > LATEST:
                pids = ", ".join(str(alive[member].pid) for member in missing)
                raise SystemRefused(
                    f"adopt what a daemon that died has left: its processes {pids} live, and did not bring "
                    f"{', '.join(lacking)} within {LATEST:g} s; nothing was started",
                    hint="they leave when their requests are over, or can be ended with kill",
                )
            if passed > CALLS and not told:
                told = True
                say(f"waiting for {len(missing)} busy processes of a daemon that died: they have {', '.join(lacking)}")
            for orphan in calls.hear(0.05):
                known = alive.get(orphan.id)
                if known is not None and known.pid == orphan.pid and orphan.id not in came and orphan.stderr >= 0:
                    self.heard.append(self._keep(orphan))
                elif len(self.strangers) < MOST:
                    self.strangers.append(orphan)
                else:  # this process calls again
                    orphan.close()

    def _keep(self, orphan: Orphan) -> Orphan:
        """Move the shared descriptors of a known member to `shared`; return the member without them.

        Descriptors that do not match the state are discarded: a worker may pass anything.
        """
        boards = {(fds.MEMFD, one.inode): one for one in self.former.found.shell.family.commons}
        marks = {*self.former.envelope.marks().values(), *boards}
        foreign = [fd for fd in (orphan.bell, orphan.board, *orphan.listeners) if mark_of(fd) not in marks]
        form = boards.get(mark_of(orphan.board))
        if form is not None and not fds.is_sealed(orphan.board, size_of(form.slots, form.lanes)):
            foreign.append(orphan.board)
        fds.discard(foreign)
        return self.shared.take(orphan.without(foreign))

    def _lacking(self) -> list[str]:
        """Return the names of shared descriptors that no member has brought, without resting listeners: only processes
        kept for a rollback have these.
        """
        listening = self.former.found.shell.listening
        resting = {f"listener {number}" for number, one in enumerate(listening.sockets) if one.resting}
        marks = self.former.envelope.marks()
        return [name for name, mark in marks.items() if mark not in self.shared.brought and name not in resting]

    def close(self) -> None:
        for orphan in (*self.heard, *self.strangers):
            orphan.close()
        self.shared.close()
        self.former.close()
