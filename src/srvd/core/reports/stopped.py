"""Workers that a signal has stopped are continued after a moment. Other standstills are replacement.py's.

A stopped worker answers no client, and the orders that it is given wait. Continuing it loses nothing, so it needs no
replacement, and no proof that a client waits. Pure.
"""

from __future__ import annotations

from srvd.core.actions import TellWorker, WorkerCommand
from srvd.core.event_names import EventName
from srvd.core.model import Phase
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

__all__ = ["continued", "held", "stopped", "wake"]

GRACE = 1.0
"""Seconds for programs that stop a worker for a moment: a limiter of its CPU time, a script that looks at it."""


def stopped(generation: Generation, worker: Worker, turn: Turn) -> None:
    """It was stopped just now, or is seen to be."""
    if worker.phase is not Phase.KILLED:  # SIGKILL ends a stopped process, too
        generation.workers.wake(worker, min(worker.wake_at, turn.now + GRACE))


def continued(generation: Generation, worker: Worker) -> None:
    """It has gone on by itself."""
    generation.workers.wake(worker, NEVER)


def wake(generation: Generation, worker: Worker, turn: Turn) -> None:
    """It has not gone on by itself."""
    generation.workers.wake(worker, NEVER)
    if worker.phase is Phase.KILLED:
        return
    text = (
        f"worker {worker.id} was stopped by a signal; it is continued. To hold one for longer, attach a debugger to it"
    )
    turn.note(EventName.WORKER_CONTINUED, text, worker=str(worker.id))
    turn.do(TellWorker(worker.id, WorkerCommand.WAKE))


def held(worker: Worker, turn: Turn) -> None:
    """By a debugger, while clients wait. A person has it, and knows: nothing is done to it."""
    text = f"worker {worker.id} is held by a debugger; it is left alone, and its clients wait"
    turn.note(EventName.WORKER_TRACED, text, worker=str(worker.id))
