"""The health probe of a canary: asked again until it is answered well, or its time is over, or waiting cannot help.

Knows nothing of statuses: what is healthy was said by the worker. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.actions import TellWorker, WorkerCommand
from srvd.core.events import WorkerReport, WorkerSaid
from srvd.core.lifecycle import GenerationTrigger
from srvd.core.model import ErrorCode, ExitReason, Fault, Stage
from srvd.core.operations import warming
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn
from srvd.ids import WorkerId

__all__ = ["answered", "ask", "ask_again", "overdue"]

PAUSE = 0.1
LONGEST_PAUSE = 1.0
"""Seconds between two probes: 0.1, 0.2, 0.4 … An application that warms up is not kept waiting for long, and one that
fails is asked eight times within five seconds."""

_HOPELESS = ("SyntaxError", "IndentationError", "TabError", "ImportError", "ModuleNotFoundError")
"""What code says of itself, and will say again: it is not asked a second time."""


def ask(generation: Generation, canary: Worker, turn: Turn) -> None:
    """The first time."""
    generation.canary = canary.id.serial
    generation.tries, generation.unwell, generation.ask_at = 0, "", NEVER
    transitions.shift(generation, GenerationTrigger.CANARY)
    if not generation.spec.health:
        _healthy(generation, turn)
        return
    generation.deadline = turn.now + generation.spec.health_timeout
    _tell(generation, canary, turn)


def ask_again(generation: Generation, turn: Turn) -> None:
    """The pause is over."""
    generation.ask_at = NEVER
    canary = generation.workers.get(generation.canary)
    if canary is not None and generation.stage is Stage.PROBING and generation.fault is None:
        _tell(generation, canary, turn)


def answered(generation: Generation, worker: Worker, event: WorkerSaid, turn: Turn) -> None:
    asked = generation.stage is Stage.PROBING and worker.id.serial == generation.canary and generation.fault is None
    if not asked:  # late
        return
    if event.word is WorkerReport.HEALTHY:
        generation.deadline = NEVER
        _healthy(generation, turn)
        return
    generation.unwell = event.text or "no answer"
    again = turn.now + min(LONGEST_PAUSE, PAUSE * 2 ** (generation.tries - 1))
    if _is_hopeless(event.text) or again >= generation.deadline:
        _fail(generation, turn)
    else:
        generation.ask_at = again


def _healthy(generation: Generation, turn: Turn) -> None:
    transitions.shift(generation, GenerationTrigger.HEALTHY)
    warming.begin(generation, turn)


def overdue(generation: Generation, turn: Turn) -> None:
    """Its time is over. A canary that has not come back is killed with a dump: the trial has its stacks then."""
    if generation.ask_at < NEVER:  # it has come back, and everything stood still since
        _fail(generation, turn)
        return
    message = f"the health probe was not answered within {generation.spec.health_timeout:g} s"
    if generation.unwell:
        message = _told(generation, ", the last time without an answer")
    fault = Fault(ErrorCode.HEALTH_FAILED, message, "see where it waits, or raise health_timeout")
    transitions.doom_canary(generation, ExitReason.HEALTH_TIMEOUT, fault, turn)


def _tell(generation: Generation, canary: Worker, turn: Turn) -> None:
    generation.tries += 1
    turn.do(TellWorker(canary.id, WorkerCommand.PROBE, max(0.0, generation.deadline - turn.now)))


def _fail(generation: Generation, turn: Turn) -> None:
    """Told when the canary is gone: what it wrote meanwhile may be the only proof there is."""
    generation.ask_at = NEVER
    hint = f"`srvctl why {WorkerId(*generation.id, generation.canary)}` has all of it"
    transitions.doom(generation, Fault(ErrorCode.HEALTH_FAILED, _told(generation), hint), turn)
    canary = generation.workers.get(generation.canary)
    if canary is not None:
        canary.failure = canary.failure or generation.unwell.partition("\n")[2].strip("\n")
        transitions.kill(generation, canary, ExitReason.HEALTH_FAILED, turn)


def _told(generation: Generation, last: str = "") -> str:
    seconds = f"{generation.spec.health_timeout:g} s"
    times = f" (asked {generation.tries} times in {seconds}{last})" if generation.tries > 1 else ""
    return f"the health probe failed: {_sentence(generation.unwell)}{times}"


def _sentence(text: str) -> str:
    """The first line, and of a traceback its last one, which says what it is about."""
    first, _, proof = text.partition("\n")
    return backoff.in_short(first) + backoff.last_line(proof)


def _is_hopeless(text: str) -> bool:
    last = text.strip().rpartition("\n")[2]
    return last.partition(":")[0].rpartition(".")[2] in _HOPELESS
