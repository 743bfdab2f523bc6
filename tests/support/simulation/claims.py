"""What must be true of the core after every event, said about the simulated world (`world.py`), not about the core's
own opinion of it. Each class is one subject, each method one claim; one that does not hold raises `AssertionError`.

Knows nothing of what fate will do next (`walk.py`).
"""

from __future__ import annotations

from srvd.core import actions as act
from srvd.core.events import CancelAsked, Event, Ordered, ProgramChecked, WorkerReport, WorkerSaid
from srvd.core.model import Kind, OpId, OpState, Phase, Stage, Strategy
from srvd.core.operations.completion import CLOSE_SECONDS
from srvd.core.state.model import Operation, Pool
from srvd.ids import GenerationId, WorkerId
from tests.support.simulation.claims_of_time import Certificates, InTime, Remains, Sizes, SpawnRate, split
from tests.support.simulation.processes import CHANGES, Claims
from tests.support.simulation.world import World


def watch(world: World) -> None:
    """Has every claim checked at every event of the world from now on."""
    kinds: tuple[type[Claims], ...] = (
        Answers, Upgrades, InOrder, Serving, Bounds, Changes, InTime, SpawnRate, Sizes, Remains, Certificates,
    )  # fmt: skip
    world.claims += [kind(world) for kind in kinds]


class Answers(Claims):
    """An answer comes once, and it is true."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.ended: set[OpId] = set()
        self.stopping = False
        self.sizes: dict[str, int | None] = {}  # the sizes that were ordered and came true

    def before(self, event: Event) -> None:
        self.stopping |= isinstance(event, Ordered) and event.order.kind is Kind.STOP
        pools = self.world.core.state.pools
        for name in [name for name in self.sizes if name not in pools or pools[name].removed]:
            del self.sizes[name]

    def after(self, event: Event, out: list[act.Action]) -> None:
        due = [event.ticket] if isinstance(event, (Ordered, CancelAsked)) else []
        got = [action.ticket for action in out if isinstance(action, (act.Opened, act.Refused))]
        assert got == due, f"tickets {due} were answered, and {got}"

    def done(self, action: act.Action) -> None:
        if not isinstance(action, act.Ended):
            return
        assert action.op not in self.ended, f"operation {action.op} ended twice"
        self.ended.add(action.op)
        op = self.world.core.operation(action.op)
        assert op is not None
        assert op.state.ended, f"{op!r} was answered and goes on"
        if op.state is OpState.DONE:
            assert op.fault is None
            assert op.result.get("message"), f"{op!r} done, and nobody says what"
            self._done_is_true(op)
        else:
            assert op.fault is not None, f"{op!r} failed without a reason"
            assert op.fault.message, f"{op!r} failed without a reason"
            self._failed_changed_nothing(op)

    def _done_is_true(self, op: Operation) -> None:
        world, state = self.world, self.world.core.state
        if op.order.kind is Kind.STOP:
            assert not world.children, f"stopped, and {[str(c) for c in world.children]} live"
            assert not world.mothers, "stopped, and a zygote lives"
            return
        assert not self.stopping, f"{op!r} done, while everybody was told to leave"
        if op.order.kind is Kind.SCALE:
            self._scaled(op)
        for name in [op.order.pool] if op.order.pool else list(state.pools):
            pool = state.pools.get(name)
            if pool is None or pool.removed:
                assert op.order.pool == "", f"{op!r} done, and the pool is gone"
            else:
                self._is_true_of(op, pool)

    def _is_true_of(self, op: Operation, pool: Pool) -> None:
        serving = self.world.serving(pool.name)
        wish = op.desired.get(pool.name, 0)  # as it was then: the next order may have begun in the same turn
        match op.order.kind:
            case Kind.START | Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR if pool.name in op.rollouts:
                mine = [c for c in serving if c.id.generation == op.rollouts[pool.name].generation]
                assert len(mine) >= wish, f"{op!r} done, {len(mine)} of {wish} of its generation serve"
                assert len(serving) == len(mine) or pool.paused, f"{op!r} done, and old ones still serve"
            case Kind.SCALE | Kind.RESUME:
                assert len(serving) >= wish, f"{op!r} done, {len(serving)} of {wish} serve"
            case Kind.RECYCLE:
                still = [str(c.id) for c in serving if c.id in op.targets]
                assert not still, f"{op!r} done, {still} still serve"
                assert len(serving) >= wish, f"{op!r} done, {len(serving)} of {wish} serve"
            case Kind.PAUSE if pool.paused:
                assert not serving, f"{op!r} done, {len(serving)} still serve"
            case Kind.REOPEN:
                former = [str(c.id) for c in self.world.living() if not c.reopened and c.state != "booting"]
                assert not former, f"{op!r} done, {former} still write to the former log"
            case _:
                pass

    def _scaled(self, op: Operation) -> None:
        name, order = op.order.pool, op.order
        wish, former = int(op.result["desired"]), op.before[name]
        if order.reset:
            self.sizes[name] = None
            return
        if not order.relative:
            assert wish == order.size, f"{op!r} done, the wish is {wish}"
        elif former is not None:
            assert wish == former + order.size, f"{op!r} done, the wish is {wish} after {former}"
        self.sizes[name] = wish

    def _failed_changed_nothing(self, op: Operation) -> None:
        pool = self.world.core.state.pools.get(op.order.pool)
        if op.order.kind is not Kind.SCALE or pool is None or pool.removed or not op.before or self.stopping:
            return
        former = self.sizes.get(pool.name)
        assert op.before[pool.name] == former, f"{op!r} began with {op.before[pool.name]}, {former} was in force"
        wish = op.desired[pool.name]
        assert former is None or wish in (0, former), f"{op!r} failed, the wish is {wish}, not {former} again"


class Upgrades(Claims):
    """The program is replaced by one that has checked itself and was wanted, and by no other."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.good: set[OpId] = set()

    def before(self, event: Event) -> None:
        if isinstance(event, ProgramChecked) and event.fault is None:
            self.good.add(event.op)

    def done(self, action: act.Action) -> None:
        if isinstance(action, act.ReplaceProgram):
            op = self.world.core.operation(action.op)
            assert op is not None
            assert not op.state.ended, f"{op!r} has ended, and its program is run"
            assert not op.order.check, f"{op!r} was to check only"
            assert action.op in self.good, f"{op!r} runs a program that did not pass its self-check"
            assert self.world.core.state.stop is None, "an upgrade of a daemon that stops"


class InOrder(Claims):
    """Orders come into force in the order they were given; nobody joins an operation over a rival one."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.last: dict[str, OpId] = {}  # the last pause or resume of a pool
        self.begun: set[OpId] = set()  # what ran before the event

    def before(self, event: Event) -> None:
        self.begun = {op.id for op in self.world.core.state.open_operations if op.state is not OpState.QUEUED}

    def after(self, event: Event, out: list[act.Action]) -> None:
        if isinstance(event, Ordered):
            for action in out:
                if isinstance(action, act.Opened):
                    self._nobody_is_overtaken(event, action.op)
                    joined = event.order.kind is Kind.RELOAD and action.op in self.begun
                    assert not joined, f"a reload joined operation {action.op}, which may have read the former code"
        state = self.world.core.state
        if state.stop is None and not state.open_operations:
            self._the_last_is_in_force()

    def _nobody_is_overtaken(self, event: Ordered, joined: OpId) -> None:
        state, order = self.world.core.state, event.order
        if order.kind in (Kind.PAUSE, Kind.RESUME):
            names = [order.pool] if order.pool else [pool.name for pool in state.pools.values() if not pool.removed]
            self.last |= dict.fromkeys(names, joined)
        for kinds in ((Kind.SCALE, Kind.PAUSE, Kind.RESUME), (Kind.RELOAD, Kind.ROLLBACK, Kind.RECYCLE)):
            rivals = [op for op in state.open_operations if {op.order.kind, order.kind} <= set(kinds)]
            rivals = [op for op in rivals if "" in (op.order.pool, order.pool) or op.order.pool == order.pool]
            later = [op for op in rivals if op.id > joined]
            assert not later, f"joined operation {joined} and overtook {later}"

    def _the_last_is_in_force(self) -> None:
        state = self.world.core.state
        for name, op_id in self.last.items():
            pool, op = state.pools.get(name), state.operations.get(op_id)
            if pool is not None and not pool.removed and op is not None and op.state is OpState.DONE:
                assert pool.paused == (op.order.kind is Kind.PAUSE), f"{op!r} was the last order; paused={pool.paused}"
        self.last.clear()


class Serving(Claims):
    """Whoever is sent away, enough others serve: only fate takes the number below the wish, never the core."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.served: dict[str, int] = {}
        self.finish_by: dict[WorkerId, float] = {}
        self.spoke: WorkerId | None = None

    def before(self, event: Event) -> None:
        self.served = {name: len(self.world.serving(name)) for name in self.world.core.state.pools}
        self.finish_by = {child.id: child.due for child in self.world.children.values()
                          if child.state == "draining" and not child.killed}  # fmt: skip
        self.spoke = event.worker if isinstance(event, WorkerSaid) else None  # out of turn, perhaps: it is killed then

    def done(self, action: act.Action) -> None:
        if isinstance(action, act.KillWorker) and self.world.core.state.stop is None:
            time = self.finish_by.get(action.worker, 0.0) - self.world.now
            assert time < 0.01 or action.worker == self.spoke, f"{action.worker} had {time:.2f} s left to finish"

    def after(self, event: Event, out: list[act.Action]) -> None:
        least = _least_wished(self.world, out)
        for name, pool in self.world.core.state.pools.items():
            served, now = self.served.get(name, 0), len(self.world.serving(name))
            if self.spoke is not None and self.spoke.pool == name:
                served -= 1
            wish = min(pool.target, least.get(name, pool.target))
            assert now >= min(wish, served), f"{name}: {served} served, {now} do now, the wish is {wish}"


def _least_wished(world: World, out: list[act.Action]) -> dict[str, int]:
    """The smallest size that was in force in this turn: orders may follow each other in one."""
    least: dict[str, int] = {}
    for action in out:
        if isinstance(action, act.Ended) and (op := world.core.operation(action.op)) is not None:
            least |= {name: min(wish, least.get(name, wish)) for name, wish in op.desired.items()}
    return least


class Bounds(Claims):
    """Never too many, never one without an owner, and everybody is what the core has told it to be."""

    def after(self, event: Event, out: list[act.Action]) -> None:
        pools = self.world.core.state.pools.values()
        owned = {worker.id for pool in pools for worker in pool.workers()}
        orphans = [str(worker) for worker in self.world.children if worker not in owned]
        assert not orphans, f"{orphans} live and nobody owns them"
        for pool in pools:
            self._capacity_is_bounded(pool)
            self._phases_are_what_was_done(pool)

    def _capacity_is_bounded(self, pool: Pool) -> None:
        """The wish, one surge, and a trial as large as its configuration wishes."""
        fresh, old = split(pool)
        assert len(fresh) <= pool.target, f"{pool.name}: {len(fresh)} stay, wish {pool.target}"
        confirmed = sum(w.phase is Phase.SERVING for w in fresh)
        most = max(0, pool.target - confirmed)
        assert len(old) <= most, f"{pool.name}: {len(old)} old ones beside {confirmed} fresh"
        for generation in pool.generations.values():
            if generation.is_trial:
                size = generation.spec.workers if pool.override is None else pool.override
                assert generation.staged <= max(1, size), f"{generation.id}: trial too large"

    def _phases_are_what_was_done(self, pool: Pool) -> None:
        for worker in pool.workers():
            child = self.world.children.get(worker.id)
            if child is None:
                assert worker.phase in (Phase.ASKED, Phase.CANCELLED), f"{worker.id} is {worker.phase} and gone"
                continue
            killed = worker.phase is Phase.KILLED
            assert child.killed == killed, f"{worker.id} is {worker.phase}; it was killed: {child.killed}"
            if worker.phase is Phase.DRAINING:
                assert child.state == "draining", f"{worker.id} is draining and was not told so"
            if worker.phase in (Phase.OPENING, Phase.SERVING):
                assert child.told, f"{worker.id} is {worker.phase} and was not told to serve"
                assert child.state != "draining", f"{worker.id} is {worker.phase} and was told to leave"


class Changes(Claims):
    """Generations change as a whole or not at all."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.committed: set[OpId] = set()
        self.healthy: set[GenerationId] = set()

    def before(self, event: Event) -> None:
        if (
            isinstance(event, WorkerSaid)
            and event.word is WorkerReport.HEALTHY
            and self.world.children[event.worker].probed
        ):
            self.healthy.add(GenerationId(event.worker.pool, event.worker.generation))

    def done(self, action: act.Action) -> None:
        if isinstance(action, act.Fork):
            generation = self.world.core.state.pools[action.worker.pool].generations[action.worker.generation]
            assert generation.stage is not Stage.WARMING, f"{action.worker} is forked while its zygote learns"
        op = self.world.core.operation(action.op) if isinstance(action, act.Ended) else None
        if op is not None and op.state is not OpState.DONE and op.order.kind in CHANGES:
            self._nobody_of_it_is_left(op)
        if op is not None and op.state is OpState.DONE and op.order.kind in CHANGES:
            self._no_former_worker_accepts(op)

    def after(self, event: Event, out: list[act.Action]) -> None:
        for op in self.world.core.state.operations.values():
            if not op.rollouts or op.id in self.committed:
                continue
            parts = [part for part in op.rollouts.values() if part.committed]
            assert len(parts) in (0, len(op.rollouts)), f"{op!r} committed {len(parts)} of {len(op.rollouts)} pools"
            if parts:
                self.committed.add(op.id)
                self._all_was_staged(op, _least_wished(self.world, out))

    def _all_was_staged(self, op: Operation, least: dict[str, int]) -> None:
        if op.order.kind is Kind.ROLLBACK and op.actor.name == "srvd":
            return  # the way back from a bake is at once, without a trial
        for part in op.rollouts.values():
            pool = self.world.core.state.pools.get(part.pool)
            if pool is None or pool.active != part.generation:
                continue
            source = pool.generations[part.generation]
            assert not source.spec.health or source.id in self.healthy, f"{source.id} committed and was never healthy"
            brood = self.world.brood(source.id)
            booted = sum(child.state in ("standby", "serving") or child.told for child in brood)
            target = min(pool.target, least.get(pool.name, pool.target))
            whole = part.strategy is Strategy.BLUE_GREEN and op.order.kind is not Kind.START
            wanted = target if whole else min(1, target)
            assert booted >= wanted, f"{op!r} committed with {booted} of {wanted} in standby"

    def _no_former_worker_accepts(self, op: Operation) -> None:
        """… but for one that has not read for two seconds that it shall drain."""
        for part in op.rollouts.values():
            for child in self.world.children.values():
                if child.id.pool == part.pool and child.id.generation != part.generation and child.state == "draining":
                    waited = self.world.now >= child.drained_at + CLOSE_SECONDS
                    over = child.closed or child.dead or child.killed
                    assert over or waited, f"{op!r} is done, and {child.id} may accept a client"

    def _nobody_of_it_is_left(self, op: Operation) -> None:
        """… but for those who are on their way out, or of a former generation and not replaced yet."""
        for part in op.rollouts.values():
            if part.committed:
                continue
            pool = self.world.core.state.pools.get(part.pool)
            assert pool is None or pool.active != part.generation, f"{op!r} failed, and its generation is in force"
            for child in self.world.brood(GenerationId(part.pool, part.generation)):
                leaves = child.killed or child.dead or not child.known or child.state == "draining"
                assert leaves or child.told, f"{op!r} failed, {child.id} of its trial lives on"
