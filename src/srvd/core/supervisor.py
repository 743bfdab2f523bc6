"""The supervisor: one event in, the actions that follow out. The only door of the core.

No clock, no fd, no log, no random inside: time is an argument, results of effects are events. Pure.

Theory of operation. `handle` does three things, in this order.

1. It enters the event into the observed state (`intake.py`): a worker is forked, ready, dead; an order has come; a
   deadline has passed. An event moves only the worker, generation or operation that it names. It comes from a process
   that may be wrong, late or gone, so a report about something that is no longer there is dropped.
2. It moves the observed state towards the desired one (`settle.py`): rollouts advance, pools are reconciled, what is
   empty is swept, operations that have come true or cannot any more are ended, and queued ones begin. These rules look
   at the state and not at the event. A lost, doubled or late event therefore cannot put them out of step, and `settle`
   repeats them until no operation begins or ends: the next event finds nothing that could have been done before.
   So a pool that nothing has changed has nothing to do. An event about one worker or zygote is followed by a look at
   its pool alone, unless an operation on others begins, commits or ends on the way (`Turn.touch`); a tick, and an order
   about all pools, by a look at all. What would need a look at all workers is counted at each change
   (`state/workers.py`).
3. It tells what has changed (`changes.tell`, `_with_persist`): events for watchers, and the state for a next daemon
   before each answer.

A decision is entered when it is made: with `Fork` the worker is ASKED, with `KillWorker` it is KILLED. Nothing is asked
of the performing side, and an action that fails comes back as an event. Every wait has a deadline in the state, and
`next_deadline` is the least of them; so nothing waits for ever, and no timer has to be carried over to a next program.
"""

from __future__ import annotations

from srvd.core.actions import Action, Ended, Exit, Note, Opened, Persist, Progress
from srvd.core.events import Event
from srvd.core.intake import pool_of, take
from srvd.core.model import OpId
from srvd.core.pool_index import PoolIndex
from srvd.core.settle import settle
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Operation, SupervisorState
from srvd.core.status import changes
from srvd.core.turn import Turn


class Supervisor:
    """Desired and observed state of one instance. `handle` is called with events in order of time."""

    def __init__(self, limit: int = 1024, state: SupervisorState | None = None) -> None:
        """`state`: what a former supervisor knew (`state/snapshot.py`); its limit holds then."""
        self.state = SupervisorState(limit=limit) if state is None else state
        self._index = PoolIndex(self.state)
        self._began = False

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at monotonic time `now` (seconds) and returns what is to be done, in order."""
        # The state may be another program's, whose rules have left what these would do: all of it is looked at once.
        turn = Turn(now, pool_of(event) if self._began else "")
        self._began = True
        take(self.state, event, turn)
        settle(self.state, turn)
        self._index.update(turn)
        changes.tell(self.state, turn)
        return _with_persist(turn.out)

    def next_deadline(self) -> float | None:
        """When to come back with a `Tick` if nothing else happens; None: never."""
        due = min(self._index.deadline, *(op.deadline for op in self.state.open_operations), NEVER)
        return None if due == NEVER else due

    def operation(self, op: OpId) -> Operation | None:
        return self.state.operations.get(op)


def _with_persist(actions: list[Action]) -> list[Action]:
    """The same with `Persist` before answers, so that a next daemon knows what a client was told. An order is answered
    when all that it changes at once has been done, so that this is written once. A refusal tells of no change.
    """
    out: list[Action] = []
    is_written = False
    for action in sorted(actions, key=_place):
        is_answer = isinstance(action, (Opened, Ended))
        if is_answer and not is_written:
            out.append(Persist())
        is_written = is_answer or (is_written and isinstance(action, (Note, Progress)))
        out.append(action)
    return out


def _place(action: Action) -> int:
    """Answers to orders come behind everything but the end of the daemon."""
    return 2 if isinstance(action, Exit) else 1 if isinstance(action, Opened) else 0
