"""A simulated world for the core: zygotes and workers that boot, hang, crash, lie and reuse pids, on a simulated clock.

It performs the core's actions and feeds it what follows from them; what must be true all the time is in `claims.py`.
Not a mock of the daemon: it knows nothing of sockets, only what a process can do to its supervisor.

A process ends before anybody hears of it: its pid is free at once, the report comes later, after what it had said.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from srvd.core import actions as act
from srvd.core.events import (
    AnswersCounted,
    CancelAsked,
    ConfigRead,
    ConfigRefused,
    Event,
    ForkRefused,
    LogReopened,
    Ordered,
    ProgramChecked,
    ProgramReplaced,
    RequestOverdue,
    Started,
    Tick,
    WorkerAnswered,
    WorkerContinued,
    WorkerForked,
    WorkerGone,
    WorkerOutgrew,
    WorkerReport,
    WorkerSaid,
    WorkerSilent,
    WorkerStopped,
    WorkerWarmed,
    ZygoteFailed,
    ZygoteGone,
    ZygoteLearned,
    ZygoteLoaded,
)
from srvd.core.model import Answers, Death, ErrorCode, Fault, Headroom, OpId, Order, Pid, PoolSpec, Revision
from srvd.core.state import snapshot
from srvd.core.state.deadlines import NEVER
from srvd.core.supervisor import Supervisor
from srvd.core.trace import spell
from srvd.ids import GenerationId, WorkerId
from tests.support.simulation.processes import ROOT, SHOP, Child, Claims, Mother, Weather


@dataclass
class World:
    """Runs the core against simulated processes. `story` is everything said so far, spelled only when asked for."""

    seed: int
    core: Supervisor = field(default_factory=lambda: Supervisor(limit=24))
    now: float = 0.0
    weather: Weather = field(default_factory=Weather)
    config: tuple[PoolSpec, ...] = SHOP
    children: dict[WorkerId, Child] = field(default_factory=dict)
    mothers: dict[GenerationId, Mother] = field(default_factory=dict)
    story: list[tuple[float, str, Event | act.Action]] = field(default_factory=list)
    exited: int | None = None
    well: bool = False  # fate does nothing any more
    events: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.agenda: list[tuple[float, int, Event | Callable[[], None]]] = []
        self.count = 0
        self.revision = 1
        self.tickets = 0
        self.ids: set[WorkerId | GenerationId] = set()
        self.claims: list[Claims] = []
        self.buried: Child | None = None  # the last whose death was reported

    def transcript(self, last: int = 0) -> str:
        """The story in the tongue of `core/trace.py`."""
        lines = [
            f"{at:.4f} > {spell(what)}" if mark == ">" else f"< {spell(what)}" for at, mark, what in self.story[-last:]
        ]
        return "\n".join(lines) + "\n"

    # -- time -----------------------------------------------------------------------------------------------------

    def later(self, what: Event | Callable[[], None], low: float = 0.001, high: float = 0.05) -> None:
        self._at(self.now + self.random.uniform(low, high), what)

    def _at(self, when: float, what: Event | Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.agenda, (when, self.count, what))

    def run(self, seconds: float) -> None:
        """Lets simulated time pass."""
        end = self.now + seconds
        while self.exited is None:
            deadline = self.core.next_deadline()
            coming = self.agenda[0][0] if self.agenda else None
            if deadline is not None and deadline <= end and (coming is None or deadline < coming):
                self.now = max(self.now, deadline)
                self.feed(Tick())
                again = self.core.next_deadline()
                assert again is None or again > self.now, f"deadline {again} is not after a tick at {self.now}"
            elif coming is not None and coming <= end:
                self.now, _, what = heapq.heappop(self.agenda)
                if callable(what):
                    what()
                elif self._arrives(what):
                    self.feed(what)
            else:
                break
        self.now = max(self.now, end)

    def _arrives(self, event: Event) -> bool:
        """Is there still anybody whom the event is about? A zygote that died took what it had not sent with it."""
        match event:
            case WorkerSaid() | WorkerWarmed() | WorkerGone() | WorkerForked() | WorkerContinued():
                return event.worker in self.children
            case ZygoteLoaded() | ZygoteLearned() | ZygoteFailed() | ZygoteGone():
                return event.generation in self.mothers
            case _:
                return True

    def feed(self, event: Event) -> None:
        """One event into the core, its actions performed."""
        self.events += 1
        self._enter(event)
        self.story.append((self.now, ">", event))
        for claim in self.claims:
            claim.before(event)
        out = self.core.handle(event, self.now)
        for action in out:
            if not isinstance(action, act.Note):
                self.story.append((self.now, "<", action))
            self.perform(action)
            for claim in self.claims:
                claim.done(action)
        for claim in self.claims:
            claim.after(event, out)

    def _enter(self, event: Event) -> None:
        """What the core hears is known from now on."""
        match event:
            case WorkerForked(worker, _):
                self.children[worker].known = True
            case WorkerGone(worker, _):
                self.buried = self.children.pop(worker)
            case WorkerSaid(worker, WorkerReport.SERVING, _) if self.children[worker].state == "standby":
                if self.children[worker].told:  # or it lies
                    self.children[worker].state = "serving"
            case ZygoteLoaded(generation) if self.mothers[generation].state == "loading":
                self.mothers[generation].state = "up"
            case ZygoteFailed(generation, _):
                self.mothers[generation].state, self.mothers[generation].due = "leaving", self.now + 5.0
            case ZygoteGone(generation, _, _):
                del self.mothers[generation]
                for child in self.brood(generation):  # its link is closed, nobody ever heard of it: it leaves
                    if not child.known:
                        del self.children[child.id]
            case _:
                pass

    # -- performing -----------------------------------------------------------------------------------------------

    def perform(self, action: act.Action) -> None:
        match action:
            case act.StartZygote(generation, revision):
                self._start_zygote(generation, revision)
            case act.StopZygote(generation):
                self._dismiss(generation)
            case act.KillZygote(generation, _):
                mother = self.mothers[generation]
                mother.state = "leaving"
                mother.due = self.now + 5.0
                self.later(lambda: self._zygote_dies(mother, "signal 9", "the stacks"), 0.001, 0.4)
            case act.Teach(generation):
                self._teach(self.mothers[generation])
            case act.Fork(worker):
                self._fork(worker)
            case act.TellWorker(worker, told, seconds, _):
                self._tell(self.children[worker], told, seconds)
            case act.KillWorker(worker, _):
                assert worker in self.children, f"a signal to {worker}, whose end was reported"
                self._kill(self.children[worker])
            case act.CountAnswers(pool):
                self.later(self._counted(pool))
            case act.ReadConfig(op):
                self._read_config(op)
            case act.CheckProgram(op):
                fault = Fault(ErrorCode.LOAD_FAILED, "a syntax error") if self.random.random() < 0.3 else None
                self.later(ProgramChecked(op, "1.0", "1.1", fault), 0.1, 1.0)
            case act.ReplaceProgram(op):
                self.later(lambda: self._replace_program(op), 0.001, 0.02)
            case act.ReopenLog():
                self.later(LogReopened("" if self.random.random() < 0.9 else "no such directory"), 0.0, 0.01)
            case act.Exit(code, _):
                self.exited = code
            case _:
                pass

    def _start_zygote(self, generation: GenerationId, revision: Revision) -> None:
        assert generation not in self.ids, f"{generation} is started twice: identities are never reused"
        self.ids.add(generation)
        spec = self.core.state.pools[generation.pool].generations[generation.number].spec
        mother = Mother(generation, revision, self.weather.app, self.now + spec.boot_timeout)
        self.mothers[generation] = mother
        match mother.app:
            case "raises":
                self.later(lambda: self._load_fails(mother), 0.05, 0.4)
            case "exits":
                self.later(lambda: self._zygote_dies(mother, "exit 3", "last words"), 0.05, 0.4)
            case "hangs":
                mother.deaf = True
            case _:
                self.later(lambda: self._load_succeeds(mother), 0.05, 0.5)

    def _load_fails(self, mother: Mother) -> None:
        if not mother.dead:
            self._report(
                mother, ZygoteFailed(mother.id, Fault(ErrorCode.LOAD_FAILED, "ImportError", traceback="Trace")), 0.002
            )
            self.later(lambda: self._zygote_dies(mother, "exit 1"), 0.0, 0.1)

    def _load_succeeds(self, mother: Mother) -> None:
        if not (mother.dead or mother.deaf):
            self._report(mother, ZygoteLoaded(mother.id, True), 0.002)

    def _zygote_dies(self, mother: Mother, cause: str, stderr: str = "") -> None:
        if not mother.dead:
            mother.dead = True
            self._report(mother, ZygoteGone(mother.id, cause, stderr), 0.02)

    def _dismiss(self, generation: GenerationId) -> None:
        mother = self.mothers[generation]
        assert mother.state == "up", f"{generation} reads no link, it is {mother.state}"
        mother.state, mother.due = "leaving", self.now + 5.0
        if not mother.deaf:
            self.later(lambda: self._zygote_dies(mother, "exit 0"))

    def _teach(self, mother: Mother) -> None:
        assert mother.state == "up", f"{mother.id} is taught while it is {mother.state}"
        if not (mother.deaf or mother.dead):
            self._report(mother, ZygoteLearned(mother.id), 0.3)

    def _fork(self, worker: WorkerId) -> None:
        assert worker not in self.ids, f"{worker} is forked twice: identities are never reused"
        self.ids.add(worker)
        mother = self.mothers[GenerationId(worker.pool, worker.generation)]
        assert mother.state == "up", f"{worker} asked of a zygote that is {mother.state}"
        spec = self.core.state.pools[worker.pool].generations[worker.generation].spec
        if mother.deaf:
            mother.owes = min(mother.owes, self.now + spec.boot_timeout + 5.0)
        if mother.deaf or mother.dead:
            return
        if self.random.random() < self.weather.fork_fails:
            self._report(mother, ForkRefused(worker, "EAGAIN"), 0.05)
            return
        taken = {child.pid for child in self.children.values() if not child.dead}
        pid = next(number for number in range(100, 10_000) if number not in taken)  # reused as soon as can be
        child = self.children[worker] = Child(worker, pid, self.now + spec.boot_timeout)
        child.deaf = self.random.random() < self.weather.deaf
        child.mute = child.deaf and self.random.random() < 0.3
        child.stubborn = self.random.random() < self.weather.stubborn
        self._report(child, WorkerForked(worker, Pid(pid)), 0.003)
        self._born(child, mother.app)

    def _born(self, child: Child, app: str) -> None:
        match app:
            case "boot_crash":
                self.later(lambda: self.die(child, Death(exit_code=1, stderr="boom")), 0.004, 0.1)
            case "boot_hang":
                child.deaf = True
            case "boot_raise":
                self.later(lambda: self._says(child, WorkerReport.FAILED, "Traceback: boom"), 0.004, 0.1)
            case _:
                self.later(lambda: self._says(child, WorkerReport.READY), 0.004, 0.2)
                if app == "crashes":
                    self.later(lambda: self.die(child, Death(exit_code=70)), 0.2, 1.5)

    def _says(self, child: Child, word: WorkerReport, text: str = "") -> None:
        if child.dead:
            return
        if word is WorkerReport.READY and child.state == "booting":
            child.state = "standby"
        self._report(child, WorkerSaid(child.id, word, text), 0.003)
        if self.random.random() < self.weather.liar:
            lie = self.random.choice(
                [
                    WorkerReport.READY,
                    WorkerReport.SERVING,
                    WorkerReport.CLOSED,
                    WorkerReport.FAILED,
                    WorkerReport.HEALTHY,
                    WorkerReport.UNHEALTHY,
                ]
            )
            self._report(child, WorkerSaid(child.id, lie, "a lie"), 0.003)
            self._report(child, WorkerWarmed(child.id, ("a.lie",)), 0.003)

    def _closes(self, child: Child) -> None:
        if not child.dead:
            child.closed = True
            self._report(child, WorkerSaid(child.id, WorkerReport.CLOSED), 0.003)

    def die(self, child: Child, death: Death) -> None:
        """Its process ends now, and its pid may be somebody else's; the report follows."""
        if not child.dead:
            child.dead = True
            self._report(child, WorkerGone(child.id, death), self.random.choice([0.02, 0.02, 0.6]))

    def _report(self, who: Child | Mother, event: Event, within: float) -> None:
        who.channel = max(who.channel, self.now + self.random.uniform(0.0002, within))
        self._at(who.channel, event)

    def _kill(self, child: Child) -> None:
        child.killed, child.due = True, self.now + 5.0
        if child.stubborn:
            child.stubborn = False
            return
        self.later(lambda: self.die(child, Death(signal=9)), 0.0002, 0.02)

    def _tell(self, child: Child, told: act.WorkerCommand, seconds: float) -> None:
        match told:
            case act.WorkerCommand.SERVE:
                assert child.state == "standby", f"serve to {child.id}, which is {child.state}"
                assert not child.told, f"{child.id} is told to serve twice"
                spec = self.core.state.pools[child.id.pool].generations[child.id.generation].spec
                child.told, child.due = True, self.now + spec.boot_timeout
                if not child.mute:
                    self.later(lambda: self._opens(child))
            case act.WorkerCommand.DRAIN:
                child.due = min(child.due, self.now + seconds) if child.state == "draining" else self.now + seconds
                child.drained_at = min(child.drained_at, self.now)
                child.state = "draining"
                if not child.deaf:
                    self.later(lambda: self._closes(child))
                    self.later(lambda: self.die(child, Death(exit_code=0)), 0.001, min(seconds, 3.0) + 0.002)
            case act.WorkerCommand.PROBE:
                child.probed = True
                app = self.mothers[GenerationId(child.id.pool, child.id.generation)].app
                if app == "sick":
                    self.later(lambda: self._says(child, WorkerReport.UNHEALTHY, "GET /healthz: 503"))
                elif app != "sick_hang":
                    self.later(lambda: self._says(child, WorkerReport.HEALTHY))
            case act.WorkerCommand.WARM:
                assert child.state == "standby", f"{child.id} is warmed while it is {child.state}"
                modules = self.random.choice([(), ("shop.views", "shop.forms")])
                if self.mothers[GenerationId(child.id.pool, child.id.generation)].app != "warm_hang":
                    self.later(lambda: self._warmed(child, modules))
            case act.WorkerCommand.REOPEN:
                child.reopened = child.state == "booting"  # then it may have opened the new file, or will
                if not child.deaf:
                    self.later(lambda: self._reopens(child))
            case act.WorkerCommand.WAKE:
                child.stopped_until = NEVER
                self.later(lambda: self._goes_on(child))
            case act.WorkerCommand.DUMP:
                pass

    def _warmed(self, child: Child, modules: tuple[str, ...]) -> None:
        if not child.dead:
            self._report(child, WorkerWarmed(child.id, modules), 0.003)

    def _counted(self, pool: str) -> AnswersCounted:
        """Some generations answer many requests with 5xx; the counts have nothing to do with each other."""
        counts = []
        for child in self.children.values():
            if child.id.pool == pool and not child.dead:
                total = self.random.randrange(40)
                counts.append((child.id, Answers(total, total * (child.id.generation % 4 == 3) * 3 // 4)))
        return AnswersCounted(pool, tuple(counts))

    def _opens(self, child: Child) -> None:
        if child.state == "standby":
            child.state = "serving"
        self._says(child, WorkerReport.SERVING)

    def _reopens(self, child: Child) -> None:
        if not child.dead:
            child.reopened = True
            self._report(child, WorkerSaid(child.id, WorkerReport.REOPENED), 0.003)

    def _replace_program(self, op: OpId) -> None:
        """Another core goes on with the state; the same if the new program came to nothing."""
        found = self.core.operation(op)
        if found is None or found.state.ended:
            return
        self.core = Supervisor(state=snapshot.load(snapshot.dump(self.core.state)))
        fault = Fault(ErrorCode.ROLLED_BACK, "the new program failed") if self.random.random() < 0.3 else None
        self.later(ProgramReplaced(op, fault), 0.1, 0.5)

    def _read_config(self, op: OpId) -> None:
        if self.random.random() < self.weather.config_refused:
            self.later(ConfigRefused(op, Fault(ErrorCode.CONFIG_INVALID, "a port is busy")), 0.0, 0.01)
            return
        self.revision += 1
        headroom = (("web", Headroom(100, self.random.choice([1, 80]))),)
        self.later(ConfigRead(op, Revision(self.revision), self.config, headroom), 0.0, 0.01)

    # -- what people and fate do ----------------------------------------------------------------------------------

    def start(self) -> None:
        self.feed(Started(Revision(1), self.config, ROOT))

    def order(self, order: Order) -> None:
        self.tickets += 1
        self.feed(Ordered(self.tickets, order, ROOT))

    def cancel(self, op: OpId) -> None:
        self.tickets += 1
        self.feed(CancelAsked(self.tickets, op, ROOT))

    def lose_zygote(self, mother: Mother) -> None:
        self._zygote_dies(mother, "signal 9")

    def stick(self, child: Child) -> None:
        """All its threads are in a request that does not end."""
        child.deaf = True
        self.feed(RequestOverdue(child.id, "GET /slow", 61.0))

    def fall_silent(self, child: Child) -> None:
        """Its loop does not turn, or it is stopped, and clients wait."""
        child.deaf = self.random.random() < 0.5  # or it comes to when it is continued
        self.feed(WorkerSilent(child.id, 5.1, stopped=not child.deaf))
        if not child.deaf and self.random.random() < 0.5:
            self.later(WorkerAnswered(child.id), 0.0, 0.5)

    def stop_for_a_while(self, child: Child) -> None:
        """A signal stops it; it goes on when it is continued, or before."""
        self.feed(WorkerStopped(child.id))
        child.stopped_until = self.now + 1.0
        if self.random.random() < 0.3:
            self.later(lambda: self._goes_on(child), 0.0, 0.9)

    def _goes_on(self, child: Child) -> None:
        if not child.dead:
            child.stopped_until = NEVER
            self._report(child, WorkerContinued(child.id), 0.003)

    def wear_out(self, child: Child) -> None:
        self._report(child, WorkerSaid(child.id, WorkerReport.EXPIRED, "answered 1000 requests"), 0.003)

    def outgrow(self, child: Child) -> None:
        """It is seen over max_rss."""
        self.feed(WorkerOutgrew(child.id, 612 << 20, 512 << 20))

    def heal(self) -> None:
        self.weather = Weather()
        self.well = True
        for mother in list(self.mothers.values()):
            mother.app = "good"
            if mother.deaf:
                self._zygote_dies(mother, "signal 9")

    def brood(self, generation: GenerationId) -> list[Child]:
        return [c for c in self.children.values() if (c.id.pool, c.id.generation) == generation]

    def living(self) -> list[Child]:
        """Those that the core knows and that nobody has killed yet."""
        return [c for c in self.children.values() if c.known and not c.dead and not c.killed]

    def serving(self, pool: str) -> list[Child]:
        """Who serves as far as anybody can know: has opened, was neither told to leave nor killed nor reported gone."""
        return [c for c in self.children.values() if c.id.pool == pool and c.state == "serving" and not c.killed]
