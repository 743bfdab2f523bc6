"""The state that the supervisor keeps: workers, generations, pools, operations. Mutable, few, owned by `Supervisor`.

Plain classes whose class attributes are the defaults: `dataclasses` and what it imports would cost a start 10 ms. Each
attribute is declared in the body: `snapshot.py` carries what is declared, and the default is for a state without it.

Knows what is, not what to do about it: predicates and counts only. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Annotated

from srvd.core.actions import Action, Note
from srvd.core.event_names import EventName
from srvd.core.lifecycle import CAPACITY, STAGED, TRIAL
from srvd.core.model import (
    Actor,
    Answers,
    Cause,
    Death,
    ExitReason,
    Fault,
    OpId,
    OpState,
    Order,
    Phase,
    Pid,
    PoolSpec,
    PoolState,
    Replacement,
    Revision,
    Stage,
    Strategy,
)
from srvd.core.state.codec import Formerly
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record

NEVER = float("inf")

HISTORY = 200
"""Ended operations that are kept."""

CERTIFICATES = 100
"""Deaths that are kept for each pool, and as many departures."""


STUCK = (Replacement.OVERDUE, Replacement.SILENT)
"""The replacements of workers that do not get on."""


class Turn:
    """One call of `handle`: the time it has and the actions it has decided so far."""

    __slots__ = ("now", "out")

    def __init__(self, now: float) -> None:
        self.now = now
        self.out: list[Action] = []

    def do(self, action: Action) -> None:
        self.out.append(action)

    def note(self, name: EventName, text: str, **fields: str | int | float) -> None:
        """Logs the text and tells it to watchers. `fields`: those that `EVENTS` has for the name."""
        self.out.append(Note(name, text, tuple(fields.items())))


class Worker:
    id: WorkerId
    asked: float  # when it was decided on
    deadline: float
    phase: Phase
    pid: Pid | None
    ready_at: float | None = None
    replacement: Annotated[Replacement, Formerly("condemned")] = Replacement.NONE
    worn: str = ""  # the reason of Replacement.WORN: "had served 1000 requests", "was over max_rss: …"
    outgrown: bool = False  # it was seen over max_rss
    wake_at: float = NEVER  # when it is continued: a signal has stopped it
    exit_reason: Annotated[ExitReason, Formerly("leaving")] = ExitReason.NONE
    failure: str = ""  # the traceback it sent
    log_problem: str = ""  # why its access log cannot be written
    finished: bool = False  # it has no requests any more, and is about to exit

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


class Zygote(Enum):
    """What is known of a generation's zygote."""

    LOADING = "loading"
    UP = "up"
    LEAVING = "leaving"  # told to leave, or killed
    GONE = "gone"


class MemoryPolicy(Record):
    """What is known of a generation's workers that are over max_rss: does it help to replace them?"""

    since: int = 0  # the pool's last serial when the first of them was replaced; 0: none was
    strikes: int = 0  # rounds of replacements that were too large at once
    until: float = -NEVER  # none is replaced before
    reason: str = ""


class Pace(Record):
    """What is known of a generation's workers that are worn as soon as they serve: how fast they may be replaced."""

    strikes: int = 0  # rounds of them, one after another
    last: float = -NEVER  # when the last of them was heard of
    until: float = -NEVER  # no replacement is asked for before
    reason: str = ""


class Generation:
    id: GenerationId
    spec: PoolSpec
    revision: Revision
    workers: dict[int, Worker]
    stage: Stage = Stage.LOADING
    zygote: Zygote = Zygote.LOADING
    deadline: float = NEVER  # of the zygote: to load, to leave; of the probe; of the parking
    preloaded: bool = False
    loaded: str = ""  # when it was, as people write it
    returned_from: bool = False  # by a rollback, which a second one must not undo
    folder: str = ""  # where it was loaded: the real path, whatever a link leads to by now
    canary: int = 0  # the serial of the worker that is probed
    tries: int = 0  # how often it was
    ask_at: float = NEVER  # when it is probed again; NEVER while it has not answered
    unwell: str = ""  # what it answered last, if that was not healthy
    learns: bool = False  # what its canary imports to answer is to be imported by its zygote
    mixed: str = ""  # a file of another release that one of its processes has imported
    weight: MemoryPolicy = MemoryPolicy()
    pace: Pace = Pace()
    fault: Fault | None = None  # why it failed, while its zygote is still on its way out

    def __init__(self, identity: GenerationId, spec: PoolSpec, revision: Revision) -> None:
        self.id = identity
        self.spec = spec
        self.revision = revision
        self.workers = {}

    @property
    def staged(self) -> list[Worker]:
        """Those that wait for the commit, or will. A former generation that is tried again may have others, too, that
        have not been replaced since it was put aside."""
        return [w for w in self.workers.values() if w.phase in STAGED]

    @property
    def is_accepting(self) -> bool:
        return any(w.phase in (Phase.OPENING, Phase.SERVING) for w in self.workers.values())

    def count(self, phase: Phase) -> int:
        return sum(w.phase is phase for w in self.workers.values())

    @property
    def is_trial(self) -> bool:
        return self.stage in TRIAL


class Bake(Record):
    """After the commit: until when a crash loop or worse answers switch back, and to what."""

    until: float
    former: int
    deaths: int = 0  # of workers that had been ready, not counting kills from outside
    former_answers: Answers | None = None  # what the new one's are held against; None: not counted
    answers: Answers = Answers()  # of the new generation, when they were counted last
    look_at: float = NEVER  # when they are counted next
    over: bool = False  # they are counted for the last time


class DeathRecord(Record):
    """How and why a worker ended, or a zygote, whose serial is 0. `at` is the monotonic time of its death, `lived`
    seconds since it was asked for; -1: not known.
    """

    worker: WorkerId
    pid: int
    cause: Cause
    summary: str
    death: Death
    at: float
    lived: float
    ready: bool
    traceback: str


class Backoff:
    """Counts strikes – deaths before a second of readiness – and refused forks, and holds back the next attempt."""

    strikes: int = 0
    refusals: int = 0  # rounds of forks that were refused, since the last that was not
    last: float = -NEVER  # when the last strike fell
    until: float = -NEVER  # no attempt before
    reason: str = ""  # of the last strike or refusal

    def clear(self) -> None:
        self.strikes = self.refusals = 0
        self.until = -NEVER
        self.reason = ""


class Pool:
    spec: PoolSpec
    numbers: int  # the last generation's number
    serials: int  # the last worker's serial
    breaker: Backoff
    mender: Backoff  # the same for loading a lost zygote anew
    generations: dict[int, Generation]
    deaths: Annotated[deque[DeathRecord], CERTIFICATES]  # of what went wrong, zygotes' among them
    departures: tuple[DeathRecord, ...] = ()  # of workers that left as they were told: no deploy displaces a death
    override: int | None = None
    paused: bool = False
    removed: bool = False  # by a committed reload, or the whole daemon stops
    active: int | None = None
    parked: int | None = None
    told: PoolState = PoolState.STARTING  # its state as watchers know it
    bake: Bake | None = None
    counted: tuple[tuple[WorkerId, Answers], ...] = ()  # of all workers, when the reload under way began
    taken_back: str = ""  # which generation was, and why, until the next one takes over
    restarts: int = 0
    answered: int = 0  # requests, by workers that have ended

    def __init__(self, spec: PoolSpec, numbers: int = 0, serials: int = 0) -> None:
        self.spec = spec
        self.numbers = numbers
        self.serials = serials
        self.breaker = Backoff()
        self.mender = Backoff()
        self.generations = {}
        self.deaths = deque(maxlen=CERTIFICATES)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def desired(self) -> int:
        """How many workers are asked for, paused or not."""
        return self.spec.workers if self.override is None else self.override

    @property
    def target(self) -> int:
        """How many workers shall serve now."""
        return 0 if self.removed else self.size(self.spec)

    def size(self, spec: PoolSpec) -> int:
        """How many workers would serve if this were its configuration."""
        return 0 if self.paused else spec.workers if self.override is None else self.override

    @property
    def source(self) -> Generation | None:
        """The generation that serves and that new workers come from."""
        return None if self.active is None else self.generations[self.active]

    @property
    def trial(self) -> Generation | None:
        return next((g for g in self.generations.values() if g.is_trial), None)

    @property
    def is_lost(self) -> bool:
        """It serves, and nobody can fork for it: its zygote is gone, or on its way out."""
        source = self.source
        return source is not None and source.zygote is not Zygote.UP and not self.removed

    def workers(self) -> Iterator[Worker]:
        for generation in self.generations.values():
            yield from generation.workers.values()

    def split(self) -> tuple[list[Worker], list[Worker]]:
        """Capacity but for what a trial has staged: fresh (of the source, to stay) and old (to be replaced)."""
        fresh: list[Worker] = []
        old: list[Worker] = []
        for generation in self.generations.values():
            for worker in generation.workers.values():
                if worker.phase in CAPACITY and not (generation.is_trial and worker.phase in STAGED):
                    stays = generation.id.number == self.active and worker.stays
                    (fresh if stays else old).append(worker)
        return fresh, old

    @property
    def serving(self) -> int:
        return sum(w.phase is Phase.SERVING for w in self.workers())


class Step(Record):
    """One line of an operation's timeline; `at` is monotonic."""

    at: float
    phase: str
    message: str = ""


class Rollout:
    """One pool's part in an operation that changes generations."""

    pool: str
    generation: int
    strategy: Strategy
    former: int = 0  # the generation that it took over from; 0: none, or not yet
    committed: bool = False
    finished: bool = False
    losses: int = 0  # ready workers of the trial that died
    refusals: int = 0  # rounds of forks that were refused
    retry_at: float = -NEVER  # no fork before

    def __init__(self, pool: str, generation: int, strategy: Strategy) -> None:
        self.pool = pool
        self.generation = generation
        self.strategy = strategy


class Operation:
    id: OpId
    order: Order
    actor: Actor
    created: float
    timeline: list[Step]
    result: dict[str, str | int | bool]
    # how many workers were desired in each pool when it ended
    desired: Annotated[dict[str, int], Formerly("wishes")]
    rollouts: dict[str, Rollout]
    before: dict[str, int | None]  # scale: the override to go back to
    state: OpState = OpState.QUEUED
    ended: float | None = None
    deadline: float = NEVER
    progress: tuple[str, int, int] = ("", 0, 0)
    fault: Fault | None = None
    targets: frozenset[WorkerId] = frozenset()  # recycle: whom
    revision: Revision | None = None  # reload: what was read
    asked: int = 0  # reopen: how many workers
    unanswered: frozenset[str] = frozenset()  # reopen: who is waited for
    complaints: tuple[str, ...] = ()  # reopen: who could not, and why
    warnings: tuple[str, ...] = ()  # what its answer says beside what came true

    def __init__(self, number: OpId, order: Order, actor: Actor, created: float) -> None:
        self.id = number
        self.order = order
        self.actor = actor
        self.created = created
        self.timeline = []
        self.result = {}
        self.desired = {}
        self.rollouts = {}
        self.before = {}

    @property
    def committed(self) -> bool:
        """Did it change who serves, in one pool at least?"""
        return any(part.committed for part in self.rollouts.values())

    def __repr__(self) -> str:
        return f"<Operation {self.id} {self.order.kind.value} {self.order.pool or '*'} {self.state.value}>"


class SupervisorState:
    """All of it."""

    limit: int  # most workers that may be desired of all pools together
    pools: dict[str, Pool]
    numbers: dict[str, tuple[int, int]]  # of removed pools: identities are never reused
    operations: dict[OpId, Operation]
    revisions: set[Revision]  # those that are known
    count: int = 0  # operations ever
    adopted: tuple[Revision, ...] = ()  # those in force
    started: bool = False  # the first operation has ended, well or not
    stop: OpId | None = None
    doomed: Fault | None = None  # the first start failed: exit with this when everybody is gone

    def __init__(self, limit: int = 1024) -> None:
        self.limit = limit
        self.pools = {}
        self.numbers = {}
        self.operations = {}
        self.revisions = set()

    @property
    def open_operations(self) -> list[Operation]:
        return [op for op in self.operations.values() if op.ended is None]
