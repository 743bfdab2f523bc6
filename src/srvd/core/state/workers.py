"""One worker, and the workers of a generation with what would otherwise be looked for among all of them.

Knows what is, not what to do about it. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Mapping
from typing import Annotated

from srvd.core.lifecycle import CAPACITY
from srvd.core.model import ExitReason, Phase, Pid, Replacement
from srvd.core.state.codec import Formerly
from srvd.core.state.deadlines import NEVER, Deadlines
from srvd.ids import WorkerId

__all__ = ["ANY", "STAYS", "STUCK", "Worker", "Workers"]

ANY = tuple(Replacement)

STAYS = (Replacement.NONE,)
"""No successor is to take the place of these."""

STUCK = (Replacement.OVERDUE, Replacement.SILENT)
"""The replacements of workers that do not get on."""


class Worker:
    """One worker. It is in `Generation.workers` from the decision to fork it until its death has been reported.

    What `Workers` counts is changed by the methods of `Workers`: phase, replacement, closed, deadline, wake_at.
    """

    id: WorkerId  # its generation's pool and number; the serial is never given again
    asked: float  # when it was decided on
    deadline: float  # NEVER while nothing is waited for: in STANDBY and SERVING
    phase: Phase  # moved by `transitions.step` alone; never GONE here
    pid: Pid | None  # None exactly while ASKED or CANCELLED
    ready_at: float | None = None  # set once, when BOOTING becomes STANDBY
    replacement: Annotated[Replacement, Formerly("condemned")] = Replacement.NONE  # NONE unless it was capacity then
    expired: Annotated[str, Formerly("worn")] = ""  # "had served 1000 requests"; set with EXPIRED, and stays
    outgrown: bool = False  # it was seen over max_rss; never unset
    wake_at: float = NEVER  # when it is continued; NEVER unless a signal has stopped it
    exit_reason: Annotated[ExitReason, Formerly("leaving")] = ExitReason.NONE  # not NONE if DRAINING or CANCELLED
    failure: str = ""  # the traceback that it sent; the first one stays
    log_problem: str = ""  # why its access log cannot be written; "" if it can
    closed: bool = False  # it was told to drain, and accepts no more; never unset
    finished: bool = False  # it has no requests any more, and is about to exit; never unset

    def __init__(
        self, identity: WorkerId, asked: float, deadline: float, phase: Phase = Phase.ASKED, pid: Pid | None = None
    ) -> None:
        self.id = identity
        self.asked = asked
        self.deadline = deadline
        self.phase = phase
        self.pid = pid

    @property
    def is_capacity(self) -> bool:
        return self.phase in CAPACITY

    @property
    def stays(self) -> bool:
        """Is no successor to take its place?"""
        return self.replacement is Replacement.NONE


class Workers(dict[int, Worker]):
    """The workers of one generation by serial, ascending.

    Counts and the least deadline are kept with each change, so that an event of one worker looks at no other. They are
    not saved: the constructor makes them of the workers.
    """

    def __init__(self, workers: Mapping[int, Worker] | None = None) -> None:
        super().__init__()
        self._groups: dict[tuple[Phase, Replacement], list[int]] = {}  # serials, ascending; no group is empty
        self._closed = 0  # DRAINING, and closed
        self._deadlines: Deadlines[int] = Deadlines()
        for serial, worker in (workers or {}).items():
            self[serial] = worker

    def __setitem__(self, serial: int, worker: Worker) -> None:
        super().__setitem__(serial, worker)
        self._enter(worker)
        self._remind(worker)

    def __delitem__(self, serial: int) -> None:
        self._leave(self[serial])
        self._deadlines.put(serial, NEVER)
        super().__delitem__(serial)

    # -- what changes ---------------------------------------------------------------------------------------------

    def move(self, worker: Worker, phase: Phase) -> None:
        """To another phase, in which nothing is waited for yet."""
        self._leave(worker)
        worker.phase = phase
        self._enter(worker)
        self.wait(worker, NEVER)

    def replace(self, worker: Worker, why: Replacement) -> None:
        """A successor is to take its place; with `Replacement.NONE`, it stays after all."""
        self._leave(worker)
        worker.replacement = why
        self._enter(worker)

    def close(self, worker: Worker) -> None:
        """It drains, and accepts no more."""
        self._leave(worker)
        worker.closed = True
        self._enter(worker)

    def wait(self, worker: Worker, until: float) -> None:
        """Sets its deadline."""
        worker.deadline = until
        self._remind(worker)

    def wake(self, worker: Worker, at: float) -> None:
        """Sets when it is continued."""
        worker.wake_at = at
        self._remind(worker)

    # -- what is known --------------------------------------------------------------------------------------------

    def count(self, phases: Collection[Phase], replacements: Collection[Replacement] = ANY) -> int:
        found = 0  # no generator: this is called a dozen times for each event
        for (phase, why), group in self._groups.items():
            if phase in phases and why in replacements:
                found += len(group)
        return found

    def latest(self, phases: Collection[Phase], most: int, replacements: Collection[Replacement] = ANY) -> list[Worker]:
        """The youngest of these, at most so many; the youngest comes first."""
        if most <= 0:
            return []
        groups = [group for (phase, why), group in self._groups.items() if phase in phases and why in replacements]
        serials = sorted((serial for group in groups for serial in group[-most:]), reverse=True)
        return [self[serial] for serial in serials[:most]]

    def oldest(self, phases: Collection[Phase], most: int) -> list[Worker]:
        """The oldest in these phases, at most so many; the oldest comes first."""
        groups = [group for (phase, _), group in self._groups.items() if phase in phases]
        return [self[serial] for serial in sorted(serial for group in groups for serial in group[:most])[:most]]

    @property
    def not_closed(self) -> int:
        """How many drain, and may still accept."""
        return self.count((Phase.DRAINING,)) - self._closed

    @property
    def deadline(self) -> float:
        """The least of all their deadlines."""
        return self._deadlines.least

    def due(self, now: float) -> list[Worker]:
        """Those of which a deadline has passed, ascending."""
        return [self[serial] for serial in self._deadlines.due(now)]

    def _enter(self, worker: Worker) -> None:
        insort(self._groups.setdefault((worker.phase, worker.replacement), []), worker.id.serial)
        self._closed += worker.closed and worker.phase is Phase.DRAINING

    def _leave(self, worker: Worker) -> None:
        self._closed -= worker.closed and worker.phase is Phase.DRAINING
        key = worker.phase, worker.replacement
        group = self._groups[key]
        del group[bisect_left(group, worker.id.serial)]
        if not group:
            del self._groups[key]

    def _remind(self, worker: Worker) -> None:
        self._deadlines.put(worker.id.serial, min(worker.deadline, worker.wake_at))
