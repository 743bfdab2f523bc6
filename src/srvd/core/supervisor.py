"""The supervisor: one event in, the actions that follow out. The only door of the core.

No clock, no fd, no log, no random inside: time is an argument, results of effects are events. Pure.

Theory of operation. `handle` does three things, in this order.

1. It enters the event into the observed state (`_take`): a worker is forked, ready, dead; an order has come; a deadline
   has passed. An event moves only the worker, generation or operation that it names. It comes from a process that may
   be wrong, late or gone, so a report about something that is no longer there is dropped.
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

from srvd.core import sweep, transitions
from srvd.core.actions import (
    Action,
    DropRevision,
    Ended,
    Exit,
    Note,
    Opened,
    Persist,
    Progress,
    Refused,
)
from srvd.core.events import (
    AnswersCounted,
    CancelAsked,
    CodeMixed,
    ConfigRead,
    ConfigRefused,
    Event,
    ForkRefused,
    LogReopened,
    Ordered,
    ProgramChecked,
    ProgramReplaced,
    RequestOverdue,
    Resumed,
    Started,
    Tick,
    WorkerAnswered,
    WorkerContinued,
    WorkerForked,
    WorkerGone,
    WorkerHeld,
    WorkerOutgrew,
    WorkerSaid,
    WorkerSilent,
    WorkerStopped,
    WorkerWarmed,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLearned,
    ZygoteLoaded,
)
from srvd.core.model import Actor, ErrorCode, Fault, Kind, OpId, OpState, Order, Strategy
from srvd.core.operations import baking, execute, queue, reopen, rollout, upgrade, warming
from srvd.core.pool_index import PoolIndex
from srvd.core.reports import adoption, workers, zygotes
from srvd.core.settle import settle
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Operation, Pool, SupervisorState
from srvd.core.status import changes
from srvd.core.turn import Turn


class Supervisor:
    """Desired and observed state of one instance. `handle` is called with events in order of time."""

    def __init__(self, limit: int = 1024, house: SupervisorState | None = None) -> None:
        """`house`: what a former supervisor knew (`state/snapshot.py`); its limit holds then."""
        self.house = SupervisorState(limit=limit) if house is None else house
        self._index = PoolIndex(self.house)
        self._began = False

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at monotonic time `now` (seconds) and returns what is to be done, in order."""
        # The state may be another program's, whose rules have left what these would do: all of it is looked at once.
        turn = Turn(now, _pool_of(event) if self._began else "")
        self._began = True
        self._take(event, turn)
        settle(self.house, turn)
        self._index.update(turn)
        changes.tell(self.house, turn)
        return _with_persist(turn.out)

    def next_deadline(self) -> float | None:
        """When to come back with a `Tick` if nothing else happens; None: never."""
        due = min(self._index.deadline, *(op.deadline for op in self.house.open_operations), NEVER)
        return None if due == NEVER else due

    def operation(self, op: OpId) -> Operation | None:
        return self.house.operations.get(op)

    # -- events -----------------------------------------------------------------------------------------------

    def _take(self, event: Event, turn: Turn) -> None:
        match event:
            case WorkerSaid() | WorkerForked() | ForkRefused() | WorkerGone():
                workers.of_worker(self.house, event, turn)
            case RequestOverdue() | WorkerSilent() | WorkerAnswered() | WorkerOutgrew():
                workers.of_worker(self.house, event, turn)
            case WorkerStopped() | WorkerContinued() | WorkerHeld():
                workers.of_worker(self.house, event, turn)
            case ZygoteLoaded() | ZygoteFailed() | ZygoteGone():
                zygotes.of_zygote(self.house, event, turn)
            case WorkerWarmed() | ZygoteLearned() | CodeMixed():
                warming.heard(self.house, event, turn)
            case Ordered(ticket, order, actor):
                self._ordered(ticket, order, actor, turn)
            case CancelAsked(ticket, op_id, actor):
                self._cancel(ticket, op_id, actor, turn)
            case ConfigRead() | ConfigRefused() | ProgramChecked() | ProgramReplaced():
                self._answered(event, turn)
            case AnswersCounted(name) if name in self.house.pools:
                baking.counted(self.house.pools[name], event, turn)
            case LogReopened(problem):
                reopen.answered(self.house, reopen.DAEMON, problem)
            case Started():
                self._started(event, turn)
            case Resumed():
                adoption.resume(self.house, event, turn)
            case Tick():
                self._tick(turn)

    def _answered(self, event: ConfigRead | ConfigRefused | ProgramChecked | ProgramReplaced, turn: Turn) -> None:
        """What an operation asked for has come, perhaps after its end."""
        house, op = self.house, self.operation(event.op)
        if op is None or op.state.ended:
            if isinstance(event, ConfigRead):
                turn.do(DropRevision(event.revision))
            return
        match event:
            case ConfigRead(_, revision, specs, headroom, warnings):
                op.warnings = warnings
                execute.config_read(house, op, revision, specs, dict(headroom), turn)
            case ConfigRefused(_, fault):
                queue.end(house, op, OpState.FAILED, turn, fault)
            case ProgramChecked():
                upgrade.checked(house, op, event, turn)
            case ProgramReplaced():
                upgrade.replaced(house, op, event, turn)

    def _started(self, event: Started, turn: Turn) -> None:
        self.house.revisions.add(event.revision)
        op = queue.enqueue(self.house, Order(Kind.START), event.actor, turn)
        op.state = OpState.RUNNING
        for spec in event.specs:
            pool = self.house.pools[spec.name] = Pool(spec)
            rollout.begin(op, pool, transitions.load(pool, spec, event.revision, turn), Strategy.BLUE_GREEN)

    def _ordered(self, ticket: int, order: Order, actor: Actor, turn: Turn) -> None:
        house = self.house
        fault = queue.check(house, order)
        if fault is not None:
            turn.do(Refused(ticket, fault))
            return
        turn.busy = frozenset(order.busy)
        if order.kind is Kind.STOP:
            self._stop(ticket, order, actor, turn)
            return
        same = queue.joinable(house, order)
        op = queue.join(same, actor, turn) if same else queue.enqueue(house, order, actor, turn)
        turn.do(Opened(ticket, op.id))

    def _stop(self, ticket: int, order: Order, actor: Actor, turn: Turn) -> None:
        running = self.house.stop and self.operation(self.house.stop)
        op = queue.join(running, actor, turn) if running else queue.enqueue(self.house, order, actor, turn)
        turn.do(Opened(ticket, op.id))
        execute.stop(self.house, op, turn, hurry=bool(running) or order.now)

    def _cancel(self, ticket: int, op_id: OpId, actor: Actor, turn: Turn) -> None:
        op = self.operation(op_id)
        if op is None:
            turn.do(Refused(ticket, Fault(ErrorCode.NO_SUCH_OPERATION, f"there is no operation {op_id}")))
            return
        fault = execute.cancel(self.house, op, actor.name, turn)
        turn.do(Opened(ticket, op.id) if fault is None else Refused(ticket, fault))

    def _tick(self, turn: Turn) -> None:
        house, now = self.house, turn.now
        for pool in list(house.pools.values()):
            sweep.deadlines(house, pool, turn)
            for breaker in (pool.breaker, pool.mender):
                if breaker.until <= now:
                    breaker.until = -NEVER  # the wait is over; whether an attempt follows is reconcile's to say
            baking.tick(pool, turn)
            if pool.source is not None and pool.source.pace.until <= now:
                pool.source.pace = pool.source.pace._replace(until=-NEVER)
        for op in house.open_operations:
            for part in op.rollouts.values():
                if part.retry_at <= now:
                    part.retry_at = -NEVER
            if op.deadline <= now:
                execute.expire(house, op, turn)


def _pool_of(event: Event) -> str:
    """The name of the only pool that the event can change at once; "" if there may be more, or none."""
    match event:
        case AnswersCounted():
            return event.pool
        case ZygoteLoaded() | ZygoteFailed() | ZygoteGone() | ZygoteLearned() | CodeMixed():
            return event.generation.pool
        case Ordered():
            return event.order.pool
        case Started() | Resumed() | CancelAsked() | Tick() | LogReopened():
            return ""
        case ConfigRead() | ConfigRefused() | ProgramChecked() | ProgramReplaced():
            return ""
        case _:
            return event.worker.pool


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
