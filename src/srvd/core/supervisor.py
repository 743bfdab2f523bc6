"""The supervisor: one event in, the actions that follow out. The only door of the core.

No clock, no fd, no log, no random inside: time is an argument, results of effects are events. Pure.

Theory of operation. `handle` does three things, in this order.

1. It enters the event into the observed state (`_take`): a worker is forked, ready, dead; an order has come; a deadline
   has passed. An event moves only the worker, generation or operation that it names. It comes from a process that may
   be wrong, late or gone, so a report about something that is no longer there is dropped.
2. It moves the observed state towards the desired one (`_settle`): rollouts advance, each pool is reconciled, what is
   empty is swept, operations that have come true or cannot any more are ended, and queued ones begin. These rules look
   at the state and not at the event. A lost, doubled or late event therefore cannot put them out of step, and `_settle`
   repeats them until no operation begins or ends: the next event finds nothing that could have been done before.
3. It tells what has changed (`changes.tell`, `_with_persist`): events for watchers, and the state for a next daemon
   before each answer.

A decision is entered when it is made: with `Fork` the worker is ASKED, with `KillWorker` it is KILLED. Nothing is asked
of the performing side, and an action that fails comes back as an event. Every wait has a deadline in the state, and
`next_deadline` is the least of them; so nothing waits for ever, and no timer has to be carried over to a next program.
"""

from __future__ import annotations

from srvd.core import backoff, sweep, transitions
from srvd.core.actions import (
    Action,
    Adopt,
    DropRevision,
    Ended,
    Exit,
    Note,
    Opened,
    Persist,
    Progress,
    Refused,
)
from srvd.core.event_names import EventName
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
from srvd.core.model import Actor, ErrorCode, ExitReason, Fault, Kind, OpId, OpState, Order, Phase, Strategy
from srvd.core.operations import baking, completion, execute, queue, reopen, rollout, upgrade, warming
from srvd.core.reconcile import reconcile
from srvd.core.reports import adoption, workers, zygotes
from srvd.core.state.model import NEVER, Operation, Pool, SupervisorState, Zygote
from srvd.core.status import changes
from srvd.core.turn import Turn

SELF = Actor(-1, 0, "srvd")
"""The daemon as the actor of its own decisions."""


class Supervisor:
    """Desired and observed state of one instance. `handle` is called with events in order of time."""

    def __init__(self, limit: int = 1024, house: SupervisorState | None = None) -> None:
        """`house`: what a former supervisor knew (`state/snapshot.py`); its limit holds then."""
        self.house = SupervisorState(limit=limit) if house is None else house
        self._busy: frozenset[str] = frozenset()

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at monotonic time `now` (seconds) and returns what is to be done, in order."""
        turn = Turn(now)
        self._busy = frozenset()
        self._take(event, turn)
        self._settle(turn)
        changes.tell(self.house, turn)
        return _with_persist(turn.out)

    def next_deadline(self) -> float | None:
        """When to come back with a `Tick` if nothing else happens; None: never."""
        due = NEVER
        for pool in self.house.pools.values():
            due = min(due, _pool_deadline(pool))
        for op in self.house.open_operations:
            waits = (at for part in op.rollouts.values() for at in (part.retry_at, part.close_by))
            due = min(due, op.deadline, *(at for at in waits if at > -NEVER))
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
        self._busy = frozenset(order.busy)
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

    # -- after each event -------------------------------------------------------------------------------------

    def _settle(self, turn: Turn) -> None:
        """Moves the observed state towards the desired one, as far as it goes now.

        Repeats while operations begin or end on the way.
        """
        house = self.house
        for _ in range(2 * queue.QUEUE):  # a full queue may begin and end in one turn
            before = house.count, len(house.open_operations)
            for op in house.open_operations:
                if op.state in (OpState.RUNNING, OpState.COMMITTING) and not execute.is_moot(house, op, turn):
                    rollout.advance(house, op, turn)
            for pool in list(house.pools.values()):
                self._guard(pool, turn)
                reconcile(pool, turn, self._busy)
                sweep.sweep(house, pool, turn)
            for op in house.open_operations:
                completion.judge(house, op, turn)
            start = house.operations.get(OpId(1))
            if start is not None and start.state.ended and not house.started:
                house.started = True
                self._start_ended(start, turn)
                continue
            begun = queue.runnable(house)
            if begun is not None:
                execute.begin(house, begun, turn)
            elif before == (house.count, len(house.open_operations)):
                break
        self._adopt_and_drop(turn)
        if not house.pools and house.doomed is not None:
            turn.do(Exit(1, _told(house.doomed)))
        elif not house.pools and house.stop is not None:
            turn.do(Exit(0))

    def _guard(self, pool: Pool, turn: Turn) -> None:
        """Takes back a generation that spoils its bake; has a lost zygote loaded anew."""
        reason = completion.bake_is_spoiled(self.house, pool)
        if reason:
            self._go_back(pool, reason, turn)
        if pool.is_lost and turn.now >= pool.mender.until and not self._is_changing(pool):
            # At once: what waits in the queue may wait for something else than this pool.
            repair = queue.enqueue(self.house, Order(Kind.REPAIR, pool.name), SELF, turn)
            execute.begin(self.house, repair, turn)
        if pool.serving >= pool.target and backoff.forgiven_at(pool.breaker) <= turn.now:
            if backoff.is_crashing(pool.breaker):
                turn.note(EventName.POOL_RECOVERED, f"pool {pool.name} is no longer crashing", pool=pool.name)
            pool.breaker.clear()
        if not pool.is_lost and backoff.forgiven_at(pool.mender) <= turn.now:
            pool.mender.clear()

    def _is_changing(self, pool: Pool) -> bool:
        """Is an operation under way that replaces its workers? One that has not chosen its pools may be about any."""
        return any(
            op.order.kind in (Kind.START, Kind.RELOAD, Kind.ROLLBACK, Kind.REPAIR, Kind.RECYCLE)
            and (pool.name in op.rollouts if op.rollouts else op.order.pool in ("", pool.name))
            and op.state is not OpState.QUEUED
            for op in self.house.open_operations
        )

    def _go_back(self, pool: Pool, reason: str, turn: Turn) -> None:
        died = not baking.spoiled(pool)
        deaths = [d.traceback or d.death.stderr for d in pool.deaths if died]
        proof = next(filter(None, reversed(deaths)), "")
        hint = (
            "srvctl why" if died else "what the application has logged of its errors; bake_errors says how many may be"
        )
        fault = Fault(
            ErrorCode.ROLLED_BACK, f"{reason}; the former generation serves again", hint, "bake", pool.name, proof
        )
        op = next(
            (o for o in self.house.open_operations if pool.name in o.rollouts and o.state is OpState.COMMITTING), None
        )
        bad = pool.active or 0
        names = [pool.name] if op is None else list(op.rollouts)
        for name in names:
            other = self.house.pools[name]
            if rollout.may_return(other):
                rollout.go_back(other, fault, turn)
        if op is not None:
            queue.end(self.house, op, OpState.ROLLED_BACK, turn, fault)
        # What follows is an operation of its own: its end tells when the former generation is whole again.
        back = queue.enqueue(self.house, Order(Kind.ROLLBACK, pool.name), SELF, turn)
        back.state = OpState.COMMITTING
        assert pool.active is not None
        rollout.begin(back, pool, pool.generations[pool.active], Strategy.ROLLING)
        back.rollouts[pool.name].committed = True
        back.rollouts[pool.name].former = bad
        back.deadline = turn.now + rollout.time_to_serve(pool, back.rollouts[pool.name])

    def _start_ended(self, op: Operation, turn: Turn) -> None:
        house = self.house
        if op.state is OpState.DONE:
            turn.note(EventName.DAEMON_READY, f"ready: {op.result['message']}")
        elif house.stop is None and not op.committed:
            house.doomed = op.fault
            execute.break_off(house, "the daemon could not start and leaves", turn)
            for pool in house.pools.values():
                rollout.remove(pool, turn)
                for worker in list(pool.workers()):
                    if worker.phase not in (Phase.KILLED, Phase.CANCELLED):
                        transitions.kill(worker, ExitReason.START_FAILED, turn)

    def _adopt_and_drop(self, turn: Turn) -> None:
        house = self.house
        served = {
            g.revision
            for pool in house.pools.values()
            for number, g in pool.generations.items()
            if number == pool.active or g.is_accepting
        }
        if served and tuple(sorted(served)) != house.adopted and house.stop is None:
            fresh = served.difference(house.adopted)
            house.adopted = tuple(sorted(served))
            # Before workers are told to accept: a listener that rests since another reload has to be heard again first.
            turn.out.insert(0 if fresh else len(turn.out), Adopt(house.adopted))
        used = {g.revision for pool in house.pools.values() for g in pool.generations.values()}
        for revision in sorted(house.revisions - used - set(house.adopted)):
            house.revisions.discard(revision)
            turn.do(DropRevision(revision))


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


def _told(fault: Fault) -> str:
    """The text of a failed start. It is all that an operator gets, since no daemon is left to ask."""
    hint = f"hint: {fault.hint}" if fault.hint and "srvctl" not in fault.hint else ""
    return "\n".join(part.strip("\n") for part in (fault.message, fault.traceback, hint) if part)


def _pool_deadline(pool: Pool) -> float:
    due = baking.deadline(pool)
    for generation in pool.generations.values():
        due = min(due, generation.deadline, generation.ask_at)
        for worker in generation.workers.values():
            due = min(due, worker.deadline, worker.wake_at)
    source = pool.source
    if source is not None:
        fresh, _ = pool.split()
        if source.zygote is Zygote.UP and len(fresh) < pool.target and pool.breaker.until > -NEVER:
            due = min(due, pool.breaker.until)
        if source.zygote is Zygote.UP and len(fresh) < pool.target and source.pace.until > -NEVER:
            due = min(due, source.pace.until)
        if pool.is_lost and pool.mender.until > -NEVER:
            due = min(due, pool.mender.until)
    if pool.serving >= pool.target:
        due = min(due, backoff.forgiven_at(pool.breaker))
    if not pool.is_lost:
        due = min(due, backoff.forgiven_at(pool.mender))
    return due
