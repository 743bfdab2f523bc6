"""All processes of a daemon: zygotes, workers, what they share, and what they leave behind.

Decides nothing and performs no action of the core (`performer.py` does): it keeps the tables together, from a start to
an end, over programs and over daemons.
"""

from __future__ import annotations

from srvd.core.events import Event, WorkerGone, ZygoteGone
from srvd.core.model import Revision
from srvd.daemon.children.commons import Commons, CommonsState
from srvd.daemon.children.leftovers import Leftovers
from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.revisions import Revisions
from srvd.daemon.children.starting.starter import ZygoteStarter
from srvd.daemon.children.worker import WorkerState
from srvd.daemon.children.workers import Workers
from srvd.daemon.children.zygote import ZygoteState
from srvd.daemon.children.zygotes import Zygotes
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record

__all__ = ["Family", "Processes"]


class Family(Record):
    """The processes as they are handed over. revisions: the configuration that each generation was made from."""

    revisions: dict[GenerationId, Revision]
    zygotes: tuple[ZygoteState, ...]
    workers: tuple[WorkerState, ...]
    commons: tuple[CommonsState, ...]


class Processes:
    """What a generation shares is closed when its last process is gone, before the core is told of that end."""

    def __init__(
        self, outlets: Outlets, commons: Commons, revisions: Revisions, family_lock: FamilyLock | None
    ) -> None:
        self._emit = outlets.emit
        self._revisions = revisions
        outlets = outlets._replace(emit=self._pass_on)
        self.commons = commons
        self.workers = Workers(outlets, commons)
        self.zygotes = Zygotes(outlets, ZygoteStarter(commons, outlets.line, family_lock), self.workers)
        self.leftovers = Leftovers(self._is_known)

    def reap(self) -> list[int]:
        """Reap children that have ended, on SIGCHLD. Returns the pids of those that were no worker or zygote.

        A worker or zygote is handled as if its pidfd had told. Also reports workers without a zygote that a signal has
        stopped or continued.
        """
        self.workers.report_halts()
        return self.leftovers.reap(self._check)

    def missing(self) -> list[WorkerId | GenerationId]:
        """The processes that were adopted and have not called yet, and those whose link has just ended."""
        return [*self.zygotes.missing(), *self.workers.missing()]

    def greet(self) -> None:
        """Tell the processes that have called, after the death of a daemon, that they are adopted."""
        self.workers.greet()
        self.zygotes.greet()

    def save(self, fd_table: FdTable) -> Family:
        """The state for the next program; the descriptors go to `fd_table`. The processes notice nothing."""
        return Family(
            self._revisions.save(),
            self.zygotes.save(fd_table),
            self.workers.save(fd_table),
            self.commons.save(fd_table),
        )

    def restore(self, found: Family, fd_table: FdTable) -> None:
        """Go on with what `save` described. Raises `Unsupported`, `OSError`.

        The settings of every revision were given before.
        """
        self._revisions.restore(found.revisions)
        self.commons.restore(found.commons, fd_table)
        for zygote in found.zygotes:
            self.zygotes.restore(zygote, self._revisions.settings(zygote.id), fd_table)
        self.workers.restore(found.workers, {zygote.id for zygote in found.zygotes}, fd_table)
        self._let_go()

    def close(self, *, dismiss: bool = True) -> None:
        """Let go of all processes at the end of the daemon.

        dismiss: tell zygotes to leave, and workers to drain and leave. Else they wait for the next daemon.
        """
        self.workers.close(dismiss=dismiss)
        self.zygotes.close(dismiss=dismiss)
        self.commons.keep(set())

    def _pass_on(self, event: Event) -> None:
        match event:
            case WorkerGone(_, death):
                event = event._replace(death=death._replace(behind=self.leftovers.new()))
                self._let_go()
            case ZygoteGone():
                event = event._replace(behind=self.leftovers.new())
                self._let_go()
        self._emit(event)

    def _let_go(self) -> None:
        """Close the scoreboards and lifelines of generations whose zygote and workers are all gone."""
        self.commons.keep(self.zygotes.generations() | self.workers.generations())

    def _check(self, pid: int) -> bool:
        """Handle the end of the worker or zygote with this pid. False: there is none."""
        worker, zygote = self.workers.pids().get(pid), self.zygotes.pids().get(pid)
        if worker is not None:
            self.workers.check(worker)
        elif zygote is not None:
            self.zygotes.check(zygote)
        return worker is not None or zygote is not None

    def _is_known(self, pid: int) -> bool:
        return pid in self.workers.pids() or pid in self.zygotes.pids()
