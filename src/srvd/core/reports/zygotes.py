"""What zygotes report, and generations whose time is over, entered into the state.

Starts no other zygote: that is `reconcile.py`'s to say. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.event_names import EventName
from srvd.core.events import (
    ZygoteFailed,
    ZygoteGone,
    ZygoteLoaded,
)
from srvd.core.lifecycle import GenerationTrigger, WorkerTrigger
from srvd.core.model import ErrorCode, Fault, Phase, Stage
from srvd.core.operations import probing, rollout, warming
from srvd.core.reports.death_records import record_zygote_death
from srvd.core.reports.trials import find, trial_failed
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, Pool, SupervisorState, Zygote
from srvd.core.turn import Turn

__all__ = ["generation_overdue", "of_zygote"]


def of_zygote(state: SupervisorState, event: ZygoteLoaded | ZygoteFailed | ZygoteGone, turn: Turn) -> None:
    """One report about one zygote."""
    found = find(state, event.generation.pool, event.generation.number)
    if found is None:
        return
    pool, generation = found
    match event:
        case ZygoteLoaded():
            _loaded(generation, event, turn)
        case ZygoteFailed():
            generation.zygote = Zygote.LEAVING
            generation.deadline = turn.now + transitions.LAST_WORDS
            fault = event.fault._replace(message=backoff.in_short(event.fault.message))
            trial_failed(state, generation, fault, turn)
        case ZygoteGone():
            _zygote_gone(state, pool, generation, event, turn)


def _loaded(generation: Generation, event: ZygoteLoaded, turn: Turn) -> None:
    if generation.zygote is not Zygote.LOADING:  # it was late and is being killed
        return
    generation.zygote = Zygote.UP
    generation.deadline = NEVER
    generation.preloaded, generation.loaded, generation.folder = event.preloaded, event.at, event.folder
    generation.learns = event.preloaded and generation.learns
    how = "loaded" if event.preloaded else "ready to fork, not preloaded"
    where = f" from {event.folder}" if event.folder else ""
    name = str(generation.id)
    turn.note(EventName.GENERATION_LOADED, f"generation {name} {how}{where}", generation=name)
    for note in event.notes:
        turn.note(EventName.GENERATION_WARNED, f"generation {name}: {note}", generation=name)
    if generation.stage is Stage.LOADING:
        transitions.shift(generation, GenerationTrigger.LOADED)


def _zygote_gone(state: SupervisorState, pool: Pool, generation: Generation, event: ZygoteGone, turn: Turn) -> None:
    unasked = generation.zygote is not Zygote.LEAVING
    generation.zygote = Zygote.GONE
    generation.deadline = NEVER
    if unasked and not pool.removed:
        record_zygote_death(pool, generation, event, turn)
    if event.behind:
        text = backoff.left_behind(f"the zygote of {generation.id}", event.behind)
        turn.note(EventName.GENERATION_LEFT_PROCESSES, text, generation=str(generation.id))
    for worker in list(generation.workers.values()):  # no zygote is left to answer for these
        if worker.phase in (Phase.ASKED, Phase.CANCELLED):
            transitions.remove(generation, worker, WorkerTrigger.REFUSED, turn)
    if generation.is_trial:
        loads = generation.stage is Stage.LOADING
        what = "the application ended its process while it was loaded" if loads else "the zygote died"
        fault = generation.fault or Fault(ErrorCode.LOAD_FAILED, f"{what} ({event.cause})")
        trial_failed(state, generation, fault._replace(traceback=fault.traceback or event.stderr), turn)
    elif generation.id.number == pool.active and not pool.removed:
        backoff.strike(pool.repair_backoff, turn.now, turn.now, generation.id.number, "its zygote died")
        text = f"the zygote of {generation.id} died ({event.cause}); its workers serve on, it is loaded anew"
        turn.note(EventName.GENERATION_ZYGOTE_DIED, text, generation=str(generation.id))
    elif generation.id.number == pool.parked:
        text = f"the parked zygote of {generation.id} died; no rollback to it"
        turn.note(EventName.GENERATION_FORMER_LOST, text, generation=str(generation.id))
        rollout.unpark(pool, turn)


def generation_overdue(state: SupervisorState, pool: Pool, generation: Generation, turn: Turn) -> None:
    """The generation's deadline has passed: to load, to answer the probe, to be kept, or to leave."""
    generation.deadline = NEVER
    if generation.zygote is Zygote.LOADING:
        limit = generation.spec.boot_timeout
        message = f"the application of {generation.id} was not loaded within {limit:g} s"
        generation.fault = Fault(
            ErrorCode.LOAD_FAILED, message, "raise boot_timeout, or see where it waits", "load", pool.name
        )
        text = f"{message}; its stacks follow, then it is killed"
        turn.note(EventName.GENERATION_LOAD_TIMEOUT, text, generation=str(generation.id))
        transitions.zygote_overdue(generation, turn)
    elif generation.zygote is Zygote.LEAVING:
        transitions.zygote_overdue(generation, turn)
    elif generation.is_trial and generation.fault is not None:  # the proof does not come: the culprit does not die
        trial_failed(state, generation, generation.fault, turn)
    elif generation.stage is Stage.PROBING:
        probing.overdue(generation, turn)
    elif generation.stage is Stage.WARMING:
        warming.overdue(generation, turn)
    elif generation.stage is Stage.PARKED:
        text = f"generation {generation.id} is no longer kept for a rollback"
        turn.note(EventName.GENERATION_EXPIRED, text, generation=str(generation.id))
        rollout.unpark(pool, turn)
