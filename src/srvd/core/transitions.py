"""One step of one worker or one zygote: the transition and the actions that belong to it, in the same breath.

Chooses no worker: `reconcile.py` and `operations/rollout.py` do. Pure.
"""

from __future__ import annotations

from srvd.core.actions import Fork, KillWorker, KillZygote, StartZygote, StopZygote, TellWorker, WorkerCommand
from srvd.core.event_names import EventName
from srvd.core.lifecycle import GenerationTrigger, WorkerTrigger, next_phase, next_stage
from srvd.core.model import ExitReason, Fault, Phase, PoolSpec, Revision
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, Pool, Zygote
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn
from srvd.ids import GenerationId, WorkerId

FORK_SECONDS = 15.0
"""What a zygote has to fork what it is asked for: it is a matter of milliseconds, but many may be asked for at once."""

LAST_WORDS = 5.0
"""Seconds a process has to be gone after SIGKILL, or a zygote after its link was closed, before it is killed again."""


IN_FLIGHT = 128
"""Workers that one zygote is asked for at a time. Its link holds some 280 orders that it has not read; one more is
refused, as if the zygote were deaf."""


def step(generation: Generation, worker: Worker, trigger: WorkerTrigger, turn: Turn) -> bool:
    """Moves the worker; False when it spoke out of turn (and has not moved). Its deadline is the caller's to set."""
    phase = next_phase(worker.phase, trigger)
    if phase is None:
        return False
    if phase is not worker.phase:
        generation.workers.move(worker, phase)
        turn.moved.append(worker)
    return True


def remove(generation: Generation, worker: Worker, trigger: WorkerTrigger, turn: Turn) -> None:
    """The worker's end was reported."""
    step(generation, worker, trigger, turn)
    del generation.workers[worker.id.serial]


def ask(pool: Pool, generation: Generation, turn: Turn) -> None:
    """A new worker. Its deadline is set before the fork: a zygote that does not fork must be found, too."""
    pool.serials += 1
    worker = Worker(
        WorkerId(pool.name, generation.id.number, pool.serials),
        asked=turn.now,
        deadline=turn.now + min(FORK_SECONDS, generation.spec.boot_timeout),
    )
    generation.workers[worker.id.serial] = worker
    turn.do(Fork(worker.id))


def open_gate(generation: Generation, worker: Worker, turn: Turn) -> None:
    step(generation, worker, WorkerTrigger.OPEN, turn)
    generation.workers.wait(worker, turn.now + generation.spec.boot_timeout)
    turn.do(TellWorker(worker.id, WorkerCommand.SERVE))


def retire(
    generation: Generation,
    worker: Worker,
    why: ExitReason,
    seconds: float,
    turn: Turn,
    *,
    leaving: bool = False,
    late: float = 0.0,
) -> None:
    """Lets the worker finish within `seconds` and leave; one that holds no request yet is ended at once. It does not
    wait for requests that were given nothing for `late` seconds, unless that is 0.0.
    """
    asked_until = worker.deadline
    step(generation, worker, WorkerTrigger.RETIRE, turn)
    _excuse(worker, why)
    if worker.phase is Phase.DRAINING:
        generation.workers.wait(worker, turn.now + seconds)
        turn.do(TellWorker(worker.id, WorkerCommand.DRAIN, seconds, late, leaving))
    elif worker.phase is Phase.KILLED:
        generation.workers.wait(worker, turn.now + LAST_WORDS)
        turn.do(KillWorker(worker.id))
    else:  # killed as soon as its pid is known; a zygote that does not tell it is deaf
        generation.workers.wait(worker, min(asked_until, turn.now + LAST_WORDS) if leaving else asked_until)


def kill(generation: Generation, worker: Worker, why: ExitReason, turn: Turn, *, dump: bool = False) -> None:
    step(generation, worker, WorkerTrigger.KILL, turn)
    _excuse(worker, why)
    generation.workers.wait(worker, turn.now + LAST_WORDS)
    if worker.phase is Phase.KILLED:
        turn.do(KillWorker(worker.id, dump))


def _excuse(worker: Worker, why: ExitReason) -> None:
    """Keeps the first reason."""
    if worker.exit_reason is ExitReason.NONE:
        worker.exit_reason = why


def overdue(generation: Generation, worker: Worker, turn: Turn) -> None:
    """The worker's deadline has passed."""
    late = worker.phase
    step(generation, worker, WorkerTrigger.OVERDUE, turn)
    if worker.phase is not Phase.KILLED:
        _excuse(worker, ExitReason.BOOT_TIMEOUT)
        generation.workers.wait(worker, NEVER)  # it goes with its zygote
        return
    generation.workers.wait(worker, turn.now + LAST_WORDS)
    if late is Phase.KILLED:
        text = f"worker {worker.id} is not gone {LAST_WORDS:.0f} s after SIGKILL; killing again"
        turn.note(EventName.WORKER_KILLED_AGAIN, text, worker=str(worker.id))
    elif late is Phase.DRAINING:
        if worker.exit_reason not in (ExitReason.OVERDUE, ExitReason.SILENT):
            worker.exit_reason = ExitReason.DRAIN_TIMEOUT
        text = f"worker {worker.id} did not {'end' if worker.finished else 'finish'} in time; killing it"
        turn.note(EventName.WORKER_DRAIN_TIMEOUT, text, worker=str(worker.id))
    else:
        worker.exit_reason = ExitReason.BOOT_TIMEOUT
        text = f"worker {worker.id} was not ready in time; its stacks follow, then it is killed"
        turn.note(EventName.WORKER_BOOT_TIMEOUT, text, worker=str(worker.id))
    turn.do(KillWorker(worker.id, dump=late is not Phase.KILLED))


def load(pool: Pool, spec: PoolSpec, revision: Revision, turn: Turn) -> Generation:
    """A new generation whose zygote is being started."""
    pool.numbers += 1
    generation = Generation(GenerationId(pool.name, pool.numbers), spec, revision)
    generation.deadline = turn.now + spec.boot_timeout
    generation.learns = bool(spec.health) or spec.warm
    pool.generations[generation.id.number] = generation
    turn.do(StartZygote(generation.id, revision))
    return generation


def shift(generation: Generation, trigger: GenerationTrigger) -> None:
    generation.stage = next_stage(generation.stage, trigger)


def doom(generation: Generation, fault: Fault, turn: Turn) -> None:
    """The trial has failed; that is told when its culprit is gone and has left its proof, or does not go."""
    generation.fault = fault
    generation.deadline = turn.now + LAST_WORDS


def doom_canary(generation: Generation, reason: ExitReason, fault: Fault, turn: Turn) -> None:
    """The trial has failed because its canary is late: it is killed with a dump, and its stacks are the proof."""
    doom(generation, fault, turn)
    canary = generation.workers.get(generation.canary)
    if canary is not None:
        kill(generation, canary, reason, turn, dump=True)


def dismiss(generation: Generation, turn: Turn) -> None:
    """Sends the zygote away; one that is still loading reads no link and is killed."""
    if generation.zygote is Zygote.UP:
        turn.do(StopZygote(generation.id))
    elif generation.zygote is Zygote.LOADING:
        turn.do(KillZygote(generation.id))
    else:
        return
    generation.zygote = Zygote.LEAVING
    generation.deadline = turn.now + LAST_WORDS


def zygote_overdue(generation: Generation, turn: Turn) -> None:
    """It did not load, or did not leave, in time."""
    turn.do(KillZygote(generation.id, dump=generation.zygote is Zygote.LOADING))
    generation.zygote = Zygote.LEAVING
    generation.deadline = turn.now + LAST_WORDS
