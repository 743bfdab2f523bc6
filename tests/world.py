"""A simulated world for the core: zygotes and workers that boot, hang, crash, lie and reuse pids, on a simulated clock.

It performs the core's actions and feeds it what follows from them; `Watch` holds what must be true after every event.
Not a mock of the daemon: it knows nothing of sockets, only what a process can do to its supervisor.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from typing import NamedTuple

from srvd.core import actions as act
from srvd.core.events import (
    CancelAsked,
    ConfigRead,
    ConfigRefused,
    Event,
    ForkRefused,
    Ordered,
    RequestOverdue,
    Started,
    Tick,
    Word,
    WorkerForked,
    WorkerGone,
    WorkerSaid,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLoaded,
)
from srvd.core.model import (
    Actor,
    Death,
    Fault,
    GenerationId,
    Headroom,
    Kind,
    OpId,
    OpState,
    Order,
    Phase,
    Pid,
    PoolSpec,
    Revision,
    Strategy,
    WorkerId,
)
from srvd.core.script import spell
from srvd.core.state import Operation
from srvd.core.supervisor import Supervisor

ROOT = Actor(0, 1, "root")
POOLS = (
    PoolSpec("web", workers=4, boot_timeout=20, drain_timeout=10, bake=10, rollback_window=60),
    PoolSpec("api", workers=2, boot_timeout=20, drain_timeout=10, health="/healthz", bake=5, rollback_window=30,
             strategy=Strategy.ROLLING),
)  # fmt: skip


@dataclass
class Child:
    """A worker process as the world has it."""

    id: WorkerId
    pid: int
    state: str = "booting"  # booting, standby, serving, draining, gone
    deaf: bool = False  # ignores the order to leave
    killed: bool = False
    told: bool = False  # was the core told of its pid?


@dataclass
class Mother:
    """A zygote process as the world has it."""

    id: GenerationId
    state: str = "loading"  # loading, up, gone
    app: str = "good"
    deaf: bool = False  # stopped: answers nothing


class Weather(NamedTuple):
    """How bad things are: chances that something goes wrong."""

    app: str = "good"  # of the code on disk: good, raises, exits, hangs, boot_crash, boot_hang, sick, crashes
    fork_fails: float = 0.0
    deaf: float = 0.0


@dataclass
class World:
    """Runs the core against simulated processes; `log` is the transcript of the last events."""

    seed: int
    core: Supervisor = field(default_factory=lambda: Supervisor(limit=24))
    now: float = 0.0
    weather: Weather = Weather()
    children: dict[WorkerId, Child] = field(default_factory=dict)
    mothers: dict[GenerationId, Mother] = field(default_factory=dict)
    agenda: list[tuple[float, int, Event]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    forks: list[tuple[float, str]] = field(default_factory=list)
    exited: int | None = None
    events: int = 0
    specs: tuple[PoolSpec, ...] = POOLS

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.count = 0
        self.revision = 1
        self.tickets = 0
        self.watch = Watch(self)

    # -- time -----------------------------------------------------------------------------------------------------

    def later(self, event: Event, low: float = 0.001, high: float = 0.05) -> None:
        self.count += 1
        heapq.heappush(self.agenda, (self.now + self.random.uniform(low, high), self.count, event))

    def advance(self) -> bool:
        """Runs the next thing due; False when nothing is due any more."""
        deadline = self.core.next_deadline()
        coming = self.agenda[0][0] if self.agenda else None
        if self.exited is not None or (deadline is None and coming is None):
            return False
        if coming is None or (deadline is not None and deadline < coming):
            assert deadline is not None
            self.now = max(self.now, deadline)
            self.feed(Tick())
            again = self.core.next_deadline()
            assert again is None or again > self.now, f"deadline {again} is not after a tick at {self.now}"
        else:
            self.now, _, event = heapq.heappop(self.agenda)
            if self.is_possible(event):
                self.feed(event)
        return True

    def run(self, seconds: float) -> None:
        """Lets simulated time pass."""
        end = self.now + seconds
        while self.exited is None:
            due = [t for t in (self.core.next_deadline(), self.agenda[0][0] if self.agenda else None) if t is not None]
            if not due or min(due) > end:
                break
            self.advance()
        self.now = max(self.now, end)

    def is_possible(self, event: Event) -> bool:
        """Nobody speaks after death; the dead do not die again."""
        if isinstance(event, WorkerSaid):
            child = self.children.get(event.worker)
            return child is not None and child.state != "gone" and not child.killed
        if isinstance(event, WorkerGone):
            child = self.children.get(event.worker)
            return child is not None and child.state != "gone"
        if isinstance(event, (ZygoteLoaded, ZygoteFailed)):
            return self.mothers[event.generation].state == "loading"
        if isinstance(event, ZygoteGone):
            return self.mothers[event.generation].state != "gone"
        if isinstance(event, WorkerForked):
            return self.children[event.worker].state != "gone"
        return True

    def feed(self, event: Event) -> None:
        """One event into the core, its actions performed, every invariant checked."""
        self.events += 1
        self._happen(event)
        self.log.append(f"{self.now:9.3f} > {spell(event)}")
        self.watch.before(event)
        out = self.core.handle(event, self.now)
        for action in out:
            if not isinstance(action, act.Note):
                self.log.append(f"          < {spell(action)}")
            self.perform(action)
            if isinstance(action, act.Ended):
                self.watch.ended(action.op)
        del self.log[:-400]
        self.watch.after(event, out)

    def _happen(self, event: Event) -> None:
        """The world changes when the event is born, before the core hears of it."""
        match event:
            case WorkerGone(worker, _):
                self.children[worker].state = "gone"
            case ZygoteGone(generation, _, _):
                self.mothers[generation].state = "gone"
                for child in self.children.values():  # its link is closed, nobody ever heard of it: it leaves
                    if (child.id.pool, child.id.generation) == generation and not child.told:
                        child.state = "gone"
            case WorkerForked(worker, _):
                self.children[worker].told = True
            case ZygoteLoaded(generation, _, _):
                self.mothers[generation].state = "up"
            case WorkerSaid(worker, Word.READY, _):
                self.children[worker].state = "standby"
            case WorkerSaid(worker, Word.SERVING, _) if self.children[worker].state == "standby":
                self.children[worker].state = "serving"
            case _:
                pass

    # -- performing -----------------------------------------------------------------------------------------------

    def perform(self, action: act.Action) -> None:
        match action:
            case act.StartZygote(generation, _):
                self._start_zygote(generation)
            case act.StopZygote(generation):
                assert self.mothers[generation].state != "loading", "a loading zygote reads no link"
                if not self.mothers[generation].deaf:
                    self.later(ZygoteGone(generation, "exit 0"))
            case act.KillZygote(generation, _):
                self.later(ZygoteGone(generation, "signal 9", "the stacks"))
            case act.Fork(worker):
                self._fork(worker)
            case act.TellWorker(worker, told, seconds, _):
                self._tell(worker, told, seconds)
            case act.KillWorker(worker, _):
                child = self.children[worker]
                assert child.state != "gone", (
                    f"a signal to {worker}, whose process is gone: its pid may be somebody else's"
                )
                child.killed = True
                self.later(WorkerGone(worker, Death(signal=9)))
            case act.ReadConfig(op):
                self._read_config(op)
            case act.Exit(code, _):
                self.exited = code
            case _:
                pass

    def _start_zygote(self, generation: GenerationId) -> None:
        mother = self.mothers[generation] = Mother(generation, app=self.weather.app)
        match mother.app:
            case "raises":
                self.later(
                    ZygoteFailed(generation, Fault("load_failed", "ImportError", traceback="Traceback")), 0.05, 0.4
                )
                self.later(ZygoteGone(generation, "exit 1"), 0.4, 0.5)
            case "exits":
                self.later(ZygoteGone(generation, "exit 3", "last words"), 0.05, 0.4)
            case "hangs":
                mother.deaf = True
            case _:
                self.later(ZygoteLoaded(generation, True), 0.05, 0.5)

    def _fork(self, worker: WorkerId) -> None:
        assert worker not in self.children, f"{worker} is forked twice: identities are never reused"
        mother = self.mothers[GenerationId(worker.pool, worker.generation)]
        assert mother.state == "up", f"{worker} asked of a zygote that is {mother.state}"
        self.forks.append((self.now, worker.pool))
        if mother.deaf:
            return
        if self.random.random() < self.weather.fork_fails:
            self.later(ForkRefused(worker, "EAGAIN"))
            return
        pid = self.random.randint(100, 130)  # few pids, so that they are reused soon
        child = self.children[worker] = Child(worker, pid, deaf=self.random.random() < self.weather.deaf)
        self.later(WorkerForked(worker, Pid(pid)), 0.001, 0.003)
        match mother.app:
            case "boot_crash":
                self.later(WorkerGone(worker, Death(exit_code=1, stderr="boom")), 0.004, 0.1)
            case "boot_hang":
                child.deaf = True
            case "boot_raise":
                self.later(WorkerSaid(worker, Word.FAILED, "Traceback: boom"), 0.004, 0.1)
            case app:
                self.later(WorkerSaid(worker, Word.READY), 0.004, 0.2)
                if app == "crashes":
                    self.later(WorkerGone(worker, Death(exit_code=70)), 0.2, 1.5)

    def _tell(self, worker: WorkerId, told: act.Told, seconds: float) -> None:
        child = self.children[worker]
        assert child.state != "gone", f"{told} to {worker}, which is gone"
        match told:
            case act.Told.SERVE:
                assert child.state == "standby", f"serve to {worker}, which is {child.state}"
                self.later(WorkerSaid(worker, Word.SERVING))
            case act.Told.DRAIN:
                child.state = "draining"
                if not child.deaf:
                    self.later(WorkerGone(worker, Death(exit_code=0)), 0.001, min(seconds, 3.0) + 0.002)
            case act.Told.PROBE:
                app = self.mothers[GenerationId(worker.pool, worker.generation)].app
                if app == "sick":
                    self.later(WorkerSaid(worker, Word.UNHEALTHY, "GET /healthz: 503"))
                elif app != "sick_hang":
                    self.later(WorkerSaid(worker, Word.HEALTHY))
            case act.Told.DUMP:
                pass

    def _read_config(self, op: OpId) -> None:
        if self.random.random() < 0.1:
            self.later(ConfigRefused(op, Fault("config_invalid", "a port is busy")), 0.0, 0.01)
            return
        self.revision += 1
        headroom = (("web", Headroom(100, self.random.choice([1, 80]))),)
        self.later(ConfigRead(op, Revision(self.revision), self.specs, headroom), 0.0, 0.01)

    # -- what people and fate do ----------------------------------------------------------------------------------

    def start(self) -> None:
        self.feed(Started(Revision(1), self.specs, ROOT))

    def order(self, order: Order) -> None:
        self.tickets += 1
        self.feed(Ordered(self.tickets, order, ROOT))

    def cancel(self, op: OpId) -> None:
        self.tickets += 1
        self.feed(CancelAsked(self.tickets, op, ROOT))

    def crash(self, worker: WorkerId, death: Death) -> None:
        self.feed(WorkerGone(worker, death))

    def lose_zygote(self, generation: GenerationId) -> None:
        self.feed(ZygoteGone(generation, "signal 9"))

    def stick(self, worker: WorkerId) -> None:
        self.children[worker].deaf = True
        self.feed(RequestOverdue(worker, "GET /slow", 61.0))

    def alive(self, *states: str) -> list[Child]:
        """Processes the core was told of, in these states."""
        return [
            c for c in self.children.values() if c.state in (states or ("booting", "standby", "serving", "draining"))
        ]

    def heal(self) -> None:
        self.weather = Weather()
        for mother in self.mothers.values():
            if mother.deaf and mother.state != "loading":
                self.later(ZygoteGone(mother.id, "signal 9"))

    def serving(self, pool: str) -> list[Child]:
        """What really serves: told to accept, has confirmed, and was not told to leave or killed."""
        return [c for c in self.children.values() if c.id.pool == pool and c.state == "serving" and not c.killed]


class Watch:
    """The invariants. Each is a sentence about the world, not about the core's own opinion of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.floors: dict[OpId, dict[str, int]] = {}
        self.answered: set[OpId] = set()
        self.opened: set[int] = set()

    def before(self, event: Event) -> None:
        self._answers_due = {event.ticket} if isinstance(event, (Ordered, CancelAsked)) else set()

    def after(self, event: Event, out: list[act.Action]) -> None:
        for action in out:
            if isinstance(action, (act.Opened, act.Refused)):
                self._answers_due.discard(action.ticket)
        assert not self._answers_due, "an order was neither opened nor refused"
        self._capacity_is_bounded()
        self._nobody_is_without_an_owner()
        self._reloads_touch_nobody_before_the_commit(event, out)

    def _capacity_is_bounded(self) -> None:
        """Never more than the wish, one surge, and a trial as large as the wish (or what was there before)."""
        house = self.world.core.house
        for pool in house.pools.values():
            fresh, old = pool.split()
            assert len(fresh) <= pool.target, f"{pool.name}: {len(fresh)} stay, wish {pool.target}"
            confirmed = sum(w.phase is Phase.SERVING for w in fresh)
            assert len(old) <= max(0, pool.target - confirmed), (
                f"{pool.name}: {len(old)} old ones beside {confirmed} fresh"
            )
            for generation in pool.generations.values():
                if generation.is_trial:
                    assert len(generation.capacity) <= max(1, pool.target), f"{generation.id}: trial too large"

    def _nobody_is_without_an_owner(self) -> None:
        house = self.world.core.house
        owned = {w.id for pool in house.pools.values() for w in pool.workers()}
        for child in self.world.children.values():
            assert child.state == "gone" or child.id in owned, f"{child.id} lives and nobody owns it"

    def _reloads_touch_nobody_before_the_commit(self, event: Event, out: list[act.Action]) -> None:
        """While a change of generations has not committed – and when it fails – no fewer serve than when it began,
        but for those that died by themselves or that an order of another kind sent away."""
        world, house = self.world, self.world.core.house
        another = isinstance(event, (Ordered, CancelAsked, Tick)) or any(isinstance(a, act.Ended) for a in out)
        another = another or any(
            op.state is OpState.RUNNING and op.order.kind in (Kind.SCALE, Kind.PAUSE, Kind.RECYCLE, Kind.STOP)
            for op in house.open_operations
        )
        for op in house.operations.values():
            if op.order.kind not in (Kind.RELOAD, Kind.ROLLBACK, Kind.REPAIR) or op.committed:
                self.floors.pop(op.id, None)
                continue
            if op.state is OpState.QUEUED or (op.state.ended and op.id not in self.floors):
                continue
            floors = self.floors.setdefault(op.id, {})
            for name, pool in house.pools.items():
                if op.order.pool not in ("", name):
                    continue
                now = len(world.serving(name))
                died = isinstance(event, WorkerGone) and event.worker.pool == name
                floor = min(floors.get(name, now) - died, pool.target)
                assert another or now >= floor, f"{op!r} has not committed, {now} of {floor} serve in {name}"
                floors[name] = now
            if op.state.ended:
                del self.floors[op.id]

    def ended(self, op_id: OpId) -> None:
        assert op_id not in self.answered, f"operation {op_id} ended twice"
        self.answered.add(op_id)
        op = self.world.core.operation(op_id)
        assert op is not None
        assert op.state.ended, f"{op!r} was answered and goes on"
        if op.state is OpState.DONE:
            self._done_is_true(op)
        else:
            assert op.fault is not None, f"{op!r} failed without a reason"

    def _done_is_true(self, op: Operation) -> None:
        world, house = self.world, self.world.core.house
        names = [op.order.pool] if op.order.pool else list(house.pools)
        for name in names:
            pool, serving = house.pools.get(name), world.serving(name)
            if pool is None or pool.removed or pool.paused:
                continue
            # The wish as it was when the operation ended: the next order may have begun in the same turn.
            wish = op.wishes.get(name, 0)
            match op.order.kind:
                case Kind.START | Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR if name in op.rollouts:
                    mine = [c for c in serving if c.id.generation == op.rollouts[name].generation]
                    assert len(mine) == wish, f"{op!r} done, {len(mine)} of {wish} of its generation serve"
                    assert len(serving) == len(mine), f"{op!r} done, and old ones still serve"
                case Kind.SCALE:
                    assert len(serving) >= wish, f"{op!r} done, {len(serving)} of {wish} serve"
                    if wish and not op.order.relative and not op.order.reset:  # 0: paused when it ended
                        assert wish == op.order.size, f"{op!r} done, wish {wish}"
                case Kind.RECYCLE:
                    still = [c.id for c in serving if c.id in op.targets]
                    assert not still, f"{op!r} done, {still} still serve"
                case Kind.PAUSE:
                    assert not serving, f"{op!r} done, {len(serving)} still serve"
                case Kind.RESUME:
                    assert len(serving) >= wish, f"{op!r} done, {len(serving)} of {wish} serve"
                case _:
                    pass
        if op.order.kind is Kind.STOP:
            assert not world.alive(), f"stopped, and {[str(c.id) for c in world.alive()]} live"
            assert all(m.state == "gone" for m in world.mothers.values()), "stopped, and a zygote lives"
