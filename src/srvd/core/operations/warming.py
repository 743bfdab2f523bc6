"""What is imported after the load: learned by the zygote from its canary, before the next fork; or of another release.

A view that is imported by the first request is one that each worker would read from the disk by itself, whatever lies
there then. The canary has been probed, and so has imported most of them: its zygote imports the same. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.actions import Teach, TellWorker, WorkerCommand
from srvd.core.event_names import EventName
from srvd.core.events import CodeMixed, WorkerWarmed, ZygoteLearned
from srvd.core.lifecycle import GenerationTrigger
from srvd.core.model import ErrorCode, ExitReason, Fault, Stage
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, SupervisorState
from srvd.core.turn import Turn

__all__ = ["begin", "heard", "overdue", "sentence"]


def begin(generation: Generation, turn: Turn) -> None:
    """The canary is healthy: have it asked the other paths, too. Once in a generation's life: when it is tried again
    for a rollback, its zygote has learned, and the files are those of another release.
    """
    if generation.learns:
        generation.learns = False
        generation.deadline = turn.now + generation.spec.boot_timeout
        canary = generation.workers[generation.canary]
        turn.do(TellWorker(canary.id, WorkerCommand.WARM, generation.spec.boot_timeout))
    else:
        _end(generation)


def heard(state: SupervisorState, event: WorkerWarmed | ZygoteLearned | CodeMixed, turn: Turn) -> None:
    """What a worker or a zygote says of what it has imported."""
    name, number = event.worker[:2] if isinstance(event, WorkerWarmed) else event.generation
    pool = state.pools.get(name)
    generation = None if pool is None else pool.generations.get(number)
    if generation is None:
        return
    match event:
        case CodeMixed():
            _mixed(generation, backoff.in_short(event.file), turn)
        case WorkerWarmed() if generation.stage is Stage.WARMING and event.worker.serial == generation.canary:
            if event.modules:
                generation.deadline = turn.now + generation.spec.boot_timeout
                turn.do(Teach(generation.id, event.modules))
            else:
                _end(generation)
        case ZygoteLearned() if generation.stage is Stage.WARMING:
            for note in event.notes:
                text = f"generation {generation.id}: {note}"
                turn.note(EventName.GENERATION_WARNED, text, generation=str(generation.id))
            _end(generation)


def _end(generation: Generation) -> None:
    generation.deadline = NEVER
    transitions.shift(generation, GenerationTrigger.WARMED)


def overdue(generation: Generation, turn: Turn) -> None:
    """The canary is killed with a dump: the trial fails when it is gone, and has its stacks then."""
    limit = generation.spec.boot_timeout
    message = f"not warm within {limit:g} s: a path of `warm` not answered, or a module not imported"
    fault = Fault(ErrorCode.BOOT_FAILED, message, "see where it waits, or raise boot_timeout")
    transitions.doom_canary(generation, ExitReason.BOOT_TIMEOUT, fault, turn)


def _mixed(generation: Generation, file: str, turn: Turn) -> None:
    if generation.mixed:
        return
    generation.mixed = file
    turn.note(EventName.GENERATION_MIXED, sentence(generation), generation=str(generation.id), file=file)


def sentence(generation: Generation) -> str:
    """That it has code of two releases; "" if that is not known."""
    return f"{generation.id} now has code of two releases: {generation.mixed}" if generation.mixed else ""
