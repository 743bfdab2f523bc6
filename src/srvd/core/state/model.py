"""The state that the supervisor keeps: workers, generations, pools, operations. Mutable, few, owned by `Supervisor`.

Plain classes whose class attributes are the defaults: `dataclasses` and what it imports would cost a start 10 ms. Each
attribute is declared in the body: `snapshot.py` carries what is declared, and the default is for a state without it.

Knows what is, not what to do about it: predicates and counts only. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from typing import Annotated

from srvd.core.lifecycle import ACCEPTING, CAPACITY, STAGED, TRIAL
from srvd.core.model import (
    Actor,
    Answers,
    Cause,
    Death,
    Fault,
    OpId,
    OpState,
    Order,
    Phase,
    PoolSpec,
    PoolState,
    Replacement,
    Revision,
    Stage,
    Strategy,
)
from srvd.core.state.codec import DERIVED, Formerly
from srvd.core.state.deadlines import NEVER
from srvd.core.state.workers import ANY, STAYS, STUCK, Worker, Workers
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record

HISTORY = 200
"""Ended operations that are kept."""

REPLACED = tuple(why for why in Replacement if why not in STAYS)

DEATHS = 100
"""Deaths that are kept for each pool, and as many departures."""


class Zygote(Enum):
    """What is known of a generation's zygote."""

    LOADING = "loading"
    UP = "up"
    LEAVING = "leaving"  # told to leave, or killed
    GONE = "gone"


class MemoryPolicy(Record):
    """What is known of a generation's workers that are over max_rss: does it help to replace them?"""

    since: int = 0  # the pool's last serial when the first of them was replaced; 0: none was
    strikes: int = 0  # rounds of replacements that were too large at once; 0 if `since` is
    until: float = -NEVER  # none is replaced before
    reason: str = ""  # "" exactly if there is no strike


class Pace(Record):
    """What is known of a generation's workers that are worn as soon as they serve: how fast they may be replaced."""

    strikes: int = 0  # rounds of them, one after another
    last: float = -NEVER  # when the last of them was heard of; -NEVER if there is no strike
    until: float = -NEVER  # no replacement is asked for before
    reason: str = ""  # "" below two strikes


class Generation:
    """One load of a pool's code. It is in `Pool.generations` until neither its zygote nor a worker is left."""

    id: GenerationId  # its pool, and a number that is never given again
    spec: PoolSpec  # of its revision; never changed
    revision: Revision  # one of `SupervisorState.revisions`
    workers: Workers  # by serial
    stage: Stage = Stage.LOADING  # moved by `transitions.shift` alone; ACTIVE exactly if `Pool.active` names it
    zygote: Zygote = Zygote.LOADING  # LOADING, UP, LEAVING, GONE: in this order, never back
    deadline: float = NEVER  # of its zygote (to load, to leave), of the probe, of warming, or of the parking
    preloaded: bool = False  # known when the zygote is UP
    loaded: str = ""  # the time of the load, as people write it; "" before
    returned_from: bool = False  # by a rollback, which a second one must not undo; only if parked
    folder: str = ""  # the real path of where it was loaded, whatever a link leads to by now; "" before
    canary: int = 0  # the serial of the worker that is probed, or was last; 0 before the first probe
    tries: int = 0  # how often it was probed in this trial
    ask_at: float = NEVER  # when it is probed again; NEVER while a probe is out
    unwell: str = ""  # its last answer that was not healthy
    learns: bool = False  # its zygote imports what the canary has imported to answer; unset when WARMING begins
    mixed: str = ""  # a file of another release that one of its processes has imported; the first one stays
    memory_policy: Annotated[MemoryPolicy, Formerly("weight")] = MemoryPolicy()
    pace: Pace = Pace()
    fault: Fault | None = None  # why its trial fails, while the proof is waited for; only in a trial, or FAILED

    def __init__(self, identity: GenerationId, spec: PoolSpec, revision: Revision) -> None:
        self.id = identity
        self.spec = spec
        self.revision = revision
        self.workers = Workers()

    @property
    def staged(self) -> int:
        """How many wait for the commit, or will. A former generation that is tried again may have others, too, that
        have not been replaced since it was put aside."""
        return self.workers.count(STAGED)

    @property
    def is_accepting(self) -> bool:
        """May a worker of it accept a client? Its listeners must not rest before."""
        return self.workers.count((Phase.OPENING, Phase.SERVING)) + self.workers.not_closed > 0

    def count(self, phase: Phase) -> int:
        return self.workers.count((phase,))

    @property
    def is_trial(self) -> bool:
        return self.stage in TRIAL


class Bake(Record):
    """After the commit: until when a crash loop or worse answers switch back, and to what."""

    until: float
    former: int  # the generation that was parked for the return; `Pool.parked` as long as it is there
    deaths: int = 0  # of workers that had been ready, not counting kills from outside
    former_answers: Answers | None = None  # of the former generation, to compare with; None: not counted yet
    answers: Answers = Answers()  # of the new generation, when they were counted last
    look_at: float = NEVER  # when they are counted next; NEVER until the former ones are
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

    strikes: int = 0  # in a row: none is older than the former one by FORGIVEN_AFTER
    refusals: int = 0  # rounds of forks that were refused, since the last that was not
    last: float = -NEVER  # when the last strike fell
    until: float = -NEVER  # no attempt before; -NEVER if nothing is held back
    reason: str = ""  # of the last strike or refusal; "" if there is neither

    def clear(self) -> None:
        self.strikes = self.refusals = 0
        self.until = -NEVER
        self.reason = ""


class Part(Record):
    """The workers of a generation that are in one of these phases and have one of these replacements."""

    generation: Generation
    phases: Collection[Phase]
    replacements: Collection[Replacement]


class Pool:
    """One pool. It is in `SupervisorState.pools` until it was removed and its last generation is gone."""

    spec: PoolSpec  # of the active generation, or of the first one that is tried
    numbers: int  # the last generation's number; only grows
    serials: int  # the last worker's serial; only grows
    backoff: Annotated[Backoff, Formerly("breaker")]  # for workers of the active generation
    repair_backoff: Annotated[Backoff, Formerly("mender")]  # for loading a lost zygote anew
    generations: dict[int, Generation]  # by number; at most one of them is a trial
    deaths: Annotated[deque[DeathRecord], DEATHS]  # of what went wrong, zygotes' among them
    departures: tuple[DeathRecord, ...] = ()  # of workers that left as they were told: no deploy displaces a death
    override: int | None = None  # the size that was ordered; None: the configured one
    paused: bool = False  # by an order
    removed: bool = False  # by a committed reload, or the whole daemon stops; its workers drain
    active: int | None = None  # a key of `generations`; None before the first commit, and when it was removed
    parked: int | None = None  # a key of `generations`, and not the active one
    announced: Annotated[PoolState, Formerly("told")] = PoolState.STARTING  # its state as watchers know it
    bake: Bake | None = None  # only while a former generation is parked
    counted: tuple[tuple[WorkerId, Answers], ...] = ()  # of all workers, when the reload under way began
    taken_back: str = ""  # which generation was, and why, until the next one takes over
    restarts: int = 0  # workers lost that no order has asked for; only grows
    answered: int = 0  # requests, by workers that have ended; only grows

    def __init__(self, spec: PoolSpec, numbers: int = 0, serials: int = 0) -> None:
        self.spec = spec
        self.numbers = numbers
        self.serials = serials
        self.backoff = Backoff()
        self.repair_backoff = Backoff()
        self.generations = {}
        self.deaths = deque(maxlen=DEATHS)

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
        """Is its zygote gone, or on its way out, while it serves? No worker can be forked for it then."""
        source = self.source
        return source is not None and source.zygote is not Zygote.UP and not self.removed

    def workers(self) -> Iterator[Worker]:
        for generation in self.generations.values():
            yield from generation.workers.values()

    def each_worker(self) -> list[tuple[Generation, Worker]]:
        """All that there are now, so that they may be moved meanwhile."""
        return [(one, worker) for one in self.generations.values() for worker in one.workers.values()]

    @property
    def fresh(self) -> int:
        """Capacity that is to stay: of the source."""
        return 0 if self.source is None else self.source.workers.count(CAPACITY, STAYS)

    @property
    def old(self) -> int:
        """Capacity that is to be replaced, of whatever generation; not what a trial has staged."""
        return sum(part.generation.workers.count(part.phases, part.replacements) for part in self.old_parts())

    def old_parts(self) -> Iterator[Part]:
        """Where the workers are that `old` counts."""
        for generation in self.generations.values():
            phases = ACCEPTING if generation.is_trial else CAPACITY
            yield Part(generation, phases, REPLACED if generation.id.number == self.active else ANY)

    @property
    def serving(self) -> int:
        return sum(generation.count(Phase.SERVING) for generation in self.generations.values())

    @property
    def getting_on(self) -> int:
        """How many workers serve, without those that are stuck."""
        stuck = sum(g.workers.count((Phase.SERVING,), STUCK) for g in self.generations.values())
        return self.serving - stuck


class Step(Record):
    """One line of an operation's timeline; `at` is monotonic."""

    at: float
    phase: str
    message: str = ""


class Rollout:
    """One pool's part in an operation that changes generations."""

    pool: str  # the key of `Operation.rollouts`
    generation: int  # a key of the pool's generations until it has failed or was replaced
    strategy: Strategy  # never AUTO: it was chosen
    former: int = 0  # the generation that it took over from; 0: none, or not yet
    committed: bool = False  # all parts of an operation at once; never unset
    finished: bool = False  # all of its workers serve and no old one is left; only if committed
    staged: bool = False  # it could commit, as far as this pool goes; only if not committed
    losses: int = 0  # ready workers of the trial that died
    refusals: int = 0  # rounds of forks that were refused, since the last that was not
    retry_at: float = -NEVER  # no fork before
    # until when the answer waits for former workers to close; NEVER before it does, -NEVER if that was in vain
    close_by: float = NEVER

    def __init__(self, pool: str, generation: int, strategy: Strategy) -> None:
        self.pool = pool
        self.generation = generation
        self.strategy = strategy


class Operation:
    """One order under way, or one that has ended and is kept for `srvctl history`."""

    id: OpId  # counts from 1
    order: Order  # never changed
    actor: Actor  # the peer that gave the order first
    created: float  # monotonic
    timeline: list[Step]  # in order of time; the first is "queued", the last is the state it ended in
    result: dict[str, str | int | bool]  # what became true; shown only if DONE
    # how many workers were desired in each pool when it ended; empty before
    desired: Annotated[dict[str, int], Formerly("wishes")]
    rollouts: dict[str, Rollout]  # by pool; empty unless it changes generations
    before: dict[str, int | None]  # scale: the override to go back to
    state: OpState = OpState.QUEUED  # QUEUED, RUNNING, COMMITTING, then an end; never back
    ended: float | None = None  # not None exactly if the state is an end
    deadline: float = NEVER  # when it is given up; NEVER: its parts have their own limits
    progress: tuple[str, int, int] = ("", 0, 0)  # step, done, total: as its client was told last
    fault: Fault | None = None  # None if DONE; set if it ended otherwise
    targets: frozenset[WorkerId] = frozenset()  # recycle: the workers to replace
    left: Annotated[set[WorkerId], DERIVED]  # recycle: those of them that are still capacity
    revision: Revision | None = None  # reload: what was read
    asked: int = 0  # reopen: how many workers were told to
    unanswered: set[str]  # reopen: names of those that have not answered, the daemon among them
    complaints: tuple[str, ...] = ()  # reopen: one sentence for each that could not
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
        self.unanswered = set()
        self.left = set()

    @property
    def committed(self) -> bool:
        """Did it change the generation that serves, in one pool at least?"""
        return any(part.committed for part in self.rollouts.values())

    def __repr__(self) -> str:
        return f"<Operation {self.id} {self.order.kind.value} {self.order.pool or '*'} {self.state.value}>"


class Operations(dict[OpId, Operation]):
    """Operations by id, ascending; those that are open are known apart from the many that have ended."""

    def __init__(self, operations: Mapping[OpId, Operation] | None = None) -> None:
        super().__init__()
        self.open: dict[OpId, Operation] = {}
        for number, op in (operations or {}).items():
            self[number] = op

    def __setitem__(self, number: OpId, op: Operation) -> None:
        super().__setitem__(number, op)
        if op.ended is None:
            self.open[number] = op

    def end(self, op: Operation, state: OpState, now: float) -> None:
        """Enters that it has ended, and forgets those that ended longest ago."""
        op.state, op.ended = state, now
        self.open.pop(op.id, None)
        ended = [number for number, other in self.items() if other.ended is not None]
        for number in ended[: max(0, len(ended) - HISTORY)]:
            del self[number]


class SupervisorState:
    """All that the supervisor knows."""

    limit: int  # most workers that may be desired of all pools together
    pools: dict[str, Pool]  # by name
    numbers: dict[str, tuple[int, int]]  # of removed pools: identities are never reused
    operations: Operations  # all that are open, and the last HISTORY that ended
    revisions: set[Revision]  # those that are known: each that a generation has, and those in force
    count: int = 0  # operations ever: the last one's id
    adopted: tuple[Revision, ...] = ()  # those in force, ascending
    started: bool = False  # the first operation has ended, well or not; never unset
    stop: OpId | None = None  # the stop under way; nothing else is taken then
    doomed: Fault | None = None  # the first start failed: exit with this when the last process is gone

    def __init__(self, limit: int = 1024) -> None:
        self.limit = limit
        self.pools = {}
        self.numbers = {}
        self.operations = Operations()
        self.revisions = set()

    @property
    def open_operations(self) -> list[Operation]:
        return list(self.operations.open.values())
