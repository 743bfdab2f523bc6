"""What becomes of the state when a daemon goes on with that of one that died: which workers are there, what is over.

Looks for no process: the event names the workers that were found, and those that are gone die like any. Pure.
"""

from __future__ import annotations

from srvd.core import transitions
from srvd.core.actions import KillWorker
from srvd.core.event_names import EventName
from srvd.core.events import Resumed
from srvd.core.lifecycle import WorkerTrigger
from srvd.core.model import ErrorCode, ExitReason, Fault, Kind, OpState, Phase
from srvd.core.operations import completion, execute, queue
from srvd.core.state.model import Generation, Operation, SupervisorState
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

__all__ = ["adopt", "lead_out"]

DIED = "the daemon died while it was under way"

_TO_SERVING = {
    Phase.ASKED: WorkerTrigger.FORKED,
    Phase.BOOTING: WorkerTrigger.READY,
    Phase.STANDBY: WorkerTrigger.OPEN,
    Phase.OPENING: WorkerTrigger.CONFIRMED,
}


def adopt(state: SupervisorState, event: Resumed, turn: Turn) -> None:
    """Brings the state, which is a moment older than the death, to what was found; nothing is under way afterwards."""
    for stranger in event.strangers:  # their names must not be given again
        pool = state.pools.get(stranger.pool)
        if pool is not None:
            pool.numbers = max(pool.numbers, stranger.generation)
            pool.serials = max(pool.serials, stranger.serial)
    serving, leaving = frozenset(event.serving), frozenset(event.leaving)
    for pool in state.pools.values():
        for generation in pool.generations.values():
            for worker in list(generation.workers.values()):
                if worker.id in serving:
                    _serves(generation, worker, turn)
                elif worker.id in leaving:
                    lead_out(generation, worker, turn)
                else:
                    _unheard(generation, worker, turn)
    for op in state.open_operations:
        _end(state, op, turn)
    came = len(serving) + len(leaving)
    text = f"the former daemon died; {came} worker{'s' * (came != 1)} came to this one"
    turn.note(EventName.DAEMON_ADOPTED, text, workers=came)


def _serves(generation: Generation, worker: Worker, turn: Turn) -> None:
    """It accepts, whatever was known of it when the state was written."""
    while worker.phase in _TO_SERVING:
        transitions.step(generation, worker, _TO_SERVING[worker.phase], turn)
    worker.ready_at = worker.ready_at or turn.now
    if worker.phase is Phase.DRAINING:  # told to, and may not have heard it
        _drain_again(generation, worker, turn)


def lead_out(generation: Generation, worker: Worker, turn: Turn) -> None:
    """It leaves, because no daemon came for it in its time."""
    if worker.phase in (Phase.STANDBY, Phase.OPENING, Phase.SERVING):
        transitions.retire(generation, worker, ExitReason.LEFT_ALONE, generation.spec.drain_timeout, turn)
    elif worker.phase is Phase.DRAINING:
        _drain_again(generation, worker, turn)


def _drain_again(generation: Generation, worker: Worker, turn: Turn) -> None:
    transitions.retire(generation, worker, worker.exit_reason, max(0.0, worker.deadline - turn.now), turn)


def _unheard(generation: Generation, worker: Worker, turn: Turn) -> None:
    """It has not called: it is busy, or gone, or was never there. One that has not accepted yet does not outlive its
    daemon: it is killed with it, or leaves.
    """
    match worker.phase:
        case Phase.ASKED | Phase.CANCELLED:
            transitions.remove(generation, worker, WorkerTrigger.REFUSED, turn)
        case Phase.BOOTING | Phase.STANDBY:
            transitions.kill(generation, worker, ExitReason.DAEMON_DIED, turn)
        case Phase.KILLED:
            generation.workers.wait(worker, turn.now + transitions.LAST_WORDS)
            turn.do(KillWorker(worker.id))
        case Phase.DRAINING:
            _drain_again(generation, worker, turn)
        case _:
            return


def _end(state: SupervisorState, op: Operation, turn: Turn) -> None:
    """No client waits for it any more, and only the daemon that died knew what it would have done next."""
    undone = Fault(ErrorCode.CANCELLED, f"{DIED}; the former state is in force", "give the order again")
    match op.order.kind:
        case _ if op.state is OpState.QUEUED:
            queue.end(state, op, OpState.FAILED, turn, undone)
        case Kind.SCALE if op.order.pool in state.pools:
            completion.restore(state, op, DIED, turn)
        case Kind.RECYCLE:
            completion.stop_recycling(state, op, DIED, turn)
        case Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR if op.state is OpState.RUNNING:
            execute.fail(state, op, undone, turn)
        case Kind.RELOAD | Kind.ROLLBACK | Kind.REPAIR:
            fault = Fault(
                ErrorCode.PARTIAL, f"{DIED}, after its commit; the new generation stays in force", "srvctl status"
            )
            queue.end(state, op, OpState.FAILED, turn, fault)
        case _:
            fault = Fault(ErrorCode.PARTIAL, f"{DIED}; how far it came is not known", "give the order again")
            queue.end(state, op, OpState.FAILED, turn, fault)
