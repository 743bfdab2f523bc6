"""`Turn`: one call of `Supervisor.handle`, as it is passed to every function that decides something.

Decides nothing and outlives no call. Pure.
"""

from __future__ import annotations

from srvd.core.actions import Action, Note
from srvd.core.event_names import EventName
from srvd.core.state.model import Operation, Pool, Rollout, SupervisorState
from srvd.core.state.workers import Worker

__all__ = ["Turn"]


class Turn:
    """The time of the event, what may have changed, and the actions that were decided so far, in order.

    pool: the name of the only pool that the event can have changed; "" if any pool may be another one now.
    busy: ids of workers that are in a request, as far as that is known.
    unsettled: what was changed behind the rules that look at it, so that they have to look again.
    moved: the workers whose phase has changed in this turn, also those that are gone.
    """

    __slots__ = ("busy", "moved", "now", "out", "pool", "unsettled")

    def __init__(self, now: float, pool: str = "") -> None:
        self.now = now
        self.pool = pool
        self.busy: frozenset[str] = frozenset()
        self.unsettled = False
        self.moved: list[Worker] = []
        self.out: list[Action] = []

    def touch(self, op: Operation) -> None:
        """Notes that the operation has come, begun, committed or ended: the pools it is about may have changed."""
        if op.order.pool != self.pool:
            self.pool = ""

    def pools(self, state: SupervisorState) -> list[Pool]:
        """The pools that may have changed. All others are as the last turn left them, with nothing to do."""
        if not self.pool:
            return list(state.pools.values())
        return [state.pools[self.pool]] if self.pool in state.pools else []

    def parts(self, op: Operation) -> list[Rollout]:
        """The parts of the operation in these pools."""
        if not self.pool:
            return list(op.rollouts.values())
        return [op.rollouts[self.pool]] if self.pool in op.rollouts else []

    def do(self, action: Action) -> None:
        self.out.append(action)

    def note(self, name: EventName, text: str, **fields: str | int | float) -> None:
        """Logs the text and tells it to watchers. `fields`: those that `EVENTS` has for the name."""
        self.out.append(Note(name, text, tuple(fields.items())))
