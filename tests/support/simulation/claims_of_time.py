"""The claims about time and about what remains: deadlines, back-off, configurations, certificates. See `claims.py`."""

from __future__ import annotations

from collections import deque

from srvd.core import actions as act
from srvd.core.backoff import FORGIVEN_AFTER
from srvd.core.events import (
    CancelAsked,
    ConfigRead,
    Event,
    Ordered,
    Started,
    WorkerGone,
    WorkerOutgrew,
    WorkerReport,
    WorkerSaid,
)
from srvd.core.lifecycle import CAPACITY, STAGED
from srvd.core.model import Cause, Death, Kind, OpId, OpState, Phase, Replacement, Revision, Stage
from srvd.core.operations.probing import LONGEST_PAUSE
from srvd.core.state.model import DeathRecord, Pool, Zygote
from srvd.core.state.workers import Worker
from srvd.ids import GenerationId, WorkerId
from tests.support.simulation.processes import CHANGES, Claims
from tests.support.simulation.world import World

WINDOW = 10.0
"""Seconds in which forks are counted."""


def split(pool: Pool) -> tuple[list[Worker], list[Worker]]:
    """Capacity but for what a trial has staged: fresh (of the source, to stay) and old (to be replaced). Looked for
    among all workers: the core counts them otherwise."""
    fresh: list[Worker] = []
    old: list[Worker] = []
    for generation in pool.generations.values():
        for worker in generation.workers.values():
            if worker.phase in CAPACITY and not (generation.is_trial and worker.phase in STAGED):
                stays = generation.id.number == pool.active and worker.replacement is Replacement.NONE
                (fresh if stays else old).append(worker)
    return fresh, old


class InTime(Claims):
    """No deadline is forgotten, nobody starves, and whatever was ordered comes to an end."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.begun: dict[OpId, float] = {}
        self.unwell: dict[WorkerId, float] = {}  # when each of those that were probed, and not healthy, has said so

    def before(self, event: Event) -> None:
        self._nothing_is_late()  # while nothing happened

    def after(self, event: Event, out: list[act.Action]) -> None:
        if isinstance(event, WorkerSaid) and event.word is WorkerReport.UNHEALTHY:
            self.unwell[event.worker] = self.world.now
        for action in out:
            if isinstance(action, act.TellWorker) and action.told is act.WorkerCommand.PROBE:
                self.unwell.pop(action.worker, None)
        self._nothing_is_late()
        self._operations_end()

    def _nothing_is_late(self) -> None:
        self._the_late_are_killed()
        for pool in self.world.core.state.pools.values():
            self._nobody_starves(pool)
            self._the_unwell_are_asked_again(pool)
            late = pool.bake is not None and pool.bake.until < self.world.now - 0.01
            assert not late, f"{pool.name} bakes on after its time"

    def _the_unwell_are_asked_again(self, pool: Pool) -> None:
        trial = pool.trial
        if trial is None or trial.stage is not Stage.PROBING or trial.fault is not None:
            return
        since = self.unwell.get(WorkerId(*trial.id, trial.canary))
        late = since is not None and self.world.now > since + LONGEST_PAUSE + 0.01
        assert not late, f"{trial.id} was not healthy at {since}, and is not asked again"

    def _the_late_are_killed(self) -> None:
        now = self.world.now
        for child in self.world.children.values():
            waits = child.state in ("booting", "draining") or child.killed or (child.told and child.state == "standby")
            assert not waits or child.dead or now <= child.due + 0.01, (
                f"{child.id} {child.state}, killed={child.killed}, was due at {child.due:.2f}"
            )
            stands = not child.dead and not child.killed and now > child.stopped_until + 0.01
            assert not stands, f"{child.id} was stopped and is not continued since {child.stopped_until:.2f}"
        for mother in self.world.mothers.values():
            waits = mother.state != "up" and not mother.dead
            assert not waits or now <= mother.due + 0.01, f"{mother.id} {mother.state} was due at {mother.due:.2f}"
            owes = mother.state == "up" and not mother.dead and now > mother.owes + 0.01
            assert not owes, f"{mother.id} owes a fork since {mother.owes:.2f}"

    def _nobody_starves(self, pool: Pool) -> None:
        """A pool below its wish is helped at once, or its back-off is not over; a minute of health ends a back-off."""
        now, backoff = self.world.now, pool.backoff
        if pool.source is None or pool.removed:
            return
        fresh, old = split(pool)
        tries = any(worker.phase in (Phase.ASKED, Phase.BOOTING) for worker in fresh)
        if pool.source.zygote is Zygote.UP and len(fresh) + len(old) < pool.target and not tries:
            assert now <= backoff.until + 0.01, f"{pool.name}: {len(fresh) + len(old)} of {pool.target}, nobody boots"
        for op in self.world.core.state.open_operations:
            part, trial = op.rollouts.get(pool.name), pool.trial
            if (
                trial is not None
                and part is not None
                and part.generation == trial.id.number
                and op.order.kind in CHANGES
            ):
                waits = trial.stage is Stage.BOOTING and trial.zygote is Zygote.UP and not trial.staged
                assert not waits or trial.fault or now <= part.retry_at + 0.01, f"{trial.id}: nobody is asked for"
        if pool.is_lost and not self._is_changing(pool):
            assert now <= pool.repair_backoff.until + 0.01, f"{pool.name} has lost its zygote, and none is loaded"
        well = backoff.strikes and pool.serving >= pool.target and now > backoff.last + FORGIVEN_AFTER
        assert not well, f"{pool.name} has been well for a minute, and {backoff.strikes} strikes are not forgiven"

    def _is_changing(self, pool: Pool) -> bool:
        under_way = [op for op in self.world.core.state.open_operations if op.state is not OpState.QUEUED]
        changes = [op for op in under_way if op.order.kind in CHANGES]
        return any(pool.name in op.rollouts or (not op.rollouts and op.order.pool in ("", pool.name)) for op in changes)

    def _operations_end(self) -> None:
        state, now = self.world.core.state, self.world.now
        for op in state.open_operations:
            if op.state is OpState.QUEUED:
                continue
            begun = self.begun.setdefault(op.id, now)
            if now <= begun + 1:
                continue
            most = max((max(pool.target, len(list(pool.workers()))) for pool in state.pools.values()), default=0)
            limit = {Kind.PAUSE: 1.0, Kind.REOPEN: 6.0, Kind.STOP: 40.0, Kind.SCALE: 30.0, Kind.RESUME: 30.0}.get(
                op.order.kind, 160 + 20.0 * (most + len(op.targets))
            )
            assert now <= begun + limit, f"{op!r} goes on for {now - begun:.0f} s"


class SpawnRate(Claims):
    """No more forks in a window than orders, and deaths of workers that had been of use, explain, and a back-off."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.spawns: dict[str, deque[float]] = {}
        self.reasons: dict[str, deque[float]] = {}

    def before(self, event: Event) -> None:
        if isinstance(event, (Ordered, CancelAsked)):
            self._reason(event.order.pool if isinstance(event, Ordered) else "", 16)
        elif isinstance(event, WorkerGone):
            worker = self.world.core.state.pools[event.worker.pool].generations[event.worker.generation]
            if worker.workers[event.worker.serial].ready_at is not None:
                self._reason(event.worker.pool, 2)

    def done(self, action: act.Action) -> None:
        match action:
            case act.Ended(op_id):
                op = self.world.core.operation(op_id)
                self._reason("" if op is None else op.order.pool, 16)
            case act.Fork(worker):
                self._spawned(worker.pool)
            case act.StartZygote(generation, _):
                self._spawned(generation.pool)
            case _:
                pass

    def _reason(self, pool: str, forks: int) -> None:
        """Something has happened that may be followed by so many forks."""
        for name in [pool] if pool else list(self.world.core.state.pools):
            self.reasons.setdefault(name, deque()).extend([self.world.now] * forks)

    def _spawned(self, pool: str) -> None:
        now = self.world.now
        spawns, reasons = self.spawns.setdefault(pool, deque()), self.reasons.setdefault(pool, deque())
        spawns.append(now)
        while spawns[0] < now - WINDOW:
            spawns.popleft()
        while reasons and reasons[0] < now - 2 * WINDOW:
            reasons.popleft()
        limit = 24 + len(reasons)
        assert len(spawns) <= limit, f"{pool}: {len(spawns)} forks in {WINDOW:g} s, {limit} can be explained"


class Sizes(Claims):
    """Who is over max_rss is replaced, but not if it has just come to replace another: that would never end."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.stayed = False
        self.serials = 0
        self.newest: dict[GenerationId, int] = {}  # the pool's last serial when the first was replaced for its size

    def before(self, event: Event) -> None:
        worker = self._of(event)
        self.stayed = worker is not None and worker.stays
        self.serials = 0 if worker is None else self.world.core.state.pools[worker.id.pool].serials

    def after(self, event: Event, out: list[act.Action]) -> None:
        worker = self._of(event)
        if worker is None or not self.stayed or worker.stays:
            return
        generation = GenerationId(worker.id.pool, worker.id.generation)
        newest = self.newest.setdefault(generation, self.serials)
        lived = self.world.now - (worker.ready_at or self.world.now)
        assert worker.id.serial <= newest or lived >= 60, f"{worker.id} came to help, and leaves after {lived:.0f} s"

    def _of(self, event: Event) -> Worker | None:
        if not isinstance(event, WorkerOutgrew):
            return None
        pool = self.world.core.state.pools.get(event.worker.pool)
        generation = pool.generations.get(event.worker.generation) if pool is not None else None
        return generation.workers.get(event.worker.serial) if generation is not None else None


class Remains(Claims):
    """A configuration is open while somebody uses it, and is dropped once, when nobody does."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.open: set[Revision] = set()
        self.adopted: tuple[Revision, ...] = ()

    def before(self, event: Event) -> None:
        if isinstance(event, (Started, ConfigRead)):
            self.open.add(event.revision)

    def done(self, action: act.Action) -> None:
        match action:
            case act.Adopt(revisions):
                assert self.open.issuperset(revisions), f"{revisions} adopted, open are {self.open}"
                self.adopted = revisions
            case act.DropRevision(revision):
                assert revision in self.open, f"configuration {revision} dropped twice"
                assert revision not in self.adopted, f"configuration {revision} dropped, and it is in force"
                users = [str(mother.id) for mother in self.world.mothers.values() if mother.revision == revision]
                assert not users, f"configuration {revision} dropped, and {users} use it"
                self.open.discard(revision)
            case _:
                pass

    def after(self, event: Event, out: list[act.Action]) -> None:
        used = {m.revision for m in self.world.mothers.values()} | set(self.adopted)
        used |= {g.revision for pool in self.world.core.state.pools.values() for g in pool.generations.values()}
        forgotten = self.open - used
        assert not forgotten, f"configurations {forgotten} are open, and nobody uses them"


class Certificates(Claims):
    """Every death that is reported leaves one certificate, with a cause that fits."""

    def after(self, event: Event, out: list[act.Action]) -> None:
        pool = self.world.core.state.pools.get(event.worker.pool) if isinstance(event, WorkerGone) else None
        if pool is None or not isinstance(event, WorkerGone):
            return
        mine = [certificate for certificate in (*pool.deaths, *pool.departures) if certificate.worker == event.worker]
        assert len(mine) == 1, f"{event.worker} has {len(mine)} certificates"
        self._fits(mine[0], event.death)

    def _fits(self, certificate: DeathRecord, death: Death) -> None:
        by_itself = {"boot_failed", "signal", "exited", "out_of_memory", "unknown"}
        sent_away = {"retired", "recycled", "died_leaving", "boot_timeout", "health_timeout", "health_failed",
                     "drain_timeout", "request_timeout", "silent", "misfit", "abandoned"}  # fmt: skip
        child = self.world.buried
        assert child is not None
        touched = child.killed or child.state == "draining"
        causes = by_itself | sent_away if touched else by_itself
        assert certificate.cause.value in causes, f"{child} died of {certificate.cause}"
        assert certificate.cause is not Cause.OUT_OF_MEMORY or death.out_of_memory
        assert certificate.summary
