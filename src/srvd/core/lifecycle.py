"""The two lives as total tables: what each trigger does to a worker's phase and to a generation's stage.

No actions here, only what follows what; `transitions.py` says what is done on the way. Pure.
"""

from __future__ import annotations

from enum import Enum

from srvd.core.model import Key, Phase, Stage


class WorkerTrigger(Key):
    """What can happen to a worker."""

    FORKED = "forked"  # its pid is known
    REFUSED = "refused"  # no process came to be
    READY = "ready"  # it says: booted
    CONFIRMED = "confirmed"  # it says: accepting
    CLOSED = "closed"  # it says: accepting no more
    FAILED = "failed"  # it says: cannot boot
    EXPIRED = "expired"  # it says: served long enough
    EXITED = "exited"  # its process ended
    OPEN = "open"  # decided: it shall accept
    RETIRE = "retire"  # decided: it shall finish and leave
    KILL = "kill"  # decided: it shall end now
    OVERDUE = "overdue"  # its deadline has passed


class GenerationTrigger(Key):
    """What can happen to a generation."""

    LOADED = "loaded"  # its zygote has the application
    CANARY = "canary"  # its first worker is ready
    HEALTHY = "healthy"  # the canary answered, or need not
    WARMED = "warmed"  # the zygote has what the canary imported, or need not
    COMMIT = "commit"  # decided: it is the one that serves
    PARK = "park"  # decided: no longer the one that serves, kept for a rollback
    TRY = "try"  # decided: a parked one shall serve again, after a canary
    RESTORE = "restore"  # decided: a parked one serves again at once
    RETIRE = "retire"  # decided: its workers leave, then its zygote
    ABANDON = "abandon"  # it will never serve
    EMPTIED = "emptied"  # neither worker nor zygote is left


class NoTransition(Enum):
    """Cells without a next phase."""

    MISFIT = "misfit"  # a worker said what it cannot say now: it is killed
    IMPOSSIBLE = "impossible"  # a bug in the core


class ImpossibleStep(AssertionError):
    """A cell that no event can reach was reached; the message names both sides."""


_SAID = (
    WorkerTrigger.READY,
    WorkerTrigger.CONFIRMED,
    WorkerTrigger.CLOSED,
    WorkerTrigger.FAILED,
    WorkerTrigger.EXPIRED,
)


def _worker_steps() -> dict[tuple[Phase, WorkerTrigger], Phase]:
    """The steps that are named one by one."""
    p, s = Phase, WorkerTrigger
    return {
        (p.ASKED, s.FORKED): p.BOOTING,
        (p.ASKED, s.REFUSED): p.GONE,
        (p.ASKED, s.RETIRE): p.CANCELLED,
        (p.ASKED, s.KILL): p.CANCELLED,
        (p.ASKED, s.OVERDUE): p.CANCELLED,
        (p.BOOTING, s.READY): p.STANDBY,
        (p.BOOTING, s.FAILED): p.KILLED,
        (p.BOOTING, s.RETIRE): p.KILLED,  # it holds no request yet
        (p.BOOTING, s.OVERDUE): p.KILLED,
        (p.STANDBY, s.OPEN): p.OPENING,
        (p.STANDBY, s.RETIRE): p.DRAINING,
        (p.OPENING, s.CONFIRMED): p.SERVING,
        (p.OPENING, s.RETIRE): p.DRAINING,
        (p.OPENING, s.OVERDUE): p.KILLED,
        (p.SERVING, s.RETIRE): p.DRAINING,
        (p.SERVING, s.EXPIRED): p.SERVING,  # until its replacement serves
        (p.DRAINING, s.RETIRE): p.DRAINING,
        (p.DRAINING, s.CONFIRMED): p.DRAINING,  # said before it read the order to leave
        (p.DRAINING, s.EXPIRED): p.DRAINING,  # as above
        (p.DRAINING, s.CLOSED): p.DRAINING,
        (p.DRAINING, s.OVERDUE): p.KILLED,
        (p.KILLED, s.RETIRE): p.KILLED,
        (p.KILLED, s.OVERDUE): p.KILLED,  # killed once more, loudly
        (p.CANCELLED, s.FORKED): p.KILLED,
        (p.CANCELLED, s.REFUSED): p.GONE,
        (p.CANCELLED, s.RETIRE): p.CANCELLED,
        (p.CANCELLED, s.KILL): p.CANCELLED,
        (p.CANCELLED, s.OVERDUE): p.CANCELLED,  # its zygote is deaf and is killed
    }


def _worker_table() -> dict[tuple[Phase, WorkerTrigger], Phase | NoTransition]:
    p, s = Phase, WorkerTrigger
    # Whatever is not named below: a worker that speaks out of turn is a misfit, anything else a bug of ours.
    table: dict[tuple[Phase, WorkerTrigger], Phase | NoTransition] = {
        (phase, trigger): NoTransition.MISFIT if trigger in _SAID else NoTransition.IMPOSSIBLE
        for phase in p
        for trigger in s
    }
    table |= _worker_steps()
    for phase in (p.BOOTING, p.STANDBY, p.OPENING, p.SERVING, p.DRAINING, p.KILLED):
        table[phase, s.EXITED] = p.GONE
        table[phase, s.KILL] = p.KILLED
    for trigger in _SAID:  # said before the kill arrived
        table[p.KILLED, trigger] = p.KILLED
    return table


def _generation_table() -> dict[tuple[Stage, GenerationTrigger], Stage | NoTransition]:
    s, i = Stage, GenerationTrigger
    table: dict[tuple[Stage, GenerationTrigger], Stage | NoTransition] = {
        (stage, trigger): NoTransition.IMPOSSIBLE for stage in s for trigger in i
    }
    table |= {
        (s.LOADING, i.LOADED): s.BOOTING,
        (s.BOOTING, i.CANARY): s.PROBING,
        (s.PROBING, i.HEALTHY): s.WARMING,
        (s.WARMING, i.WARMED): s.STAGING,
        (s.STAGING, i.COMMIT): s.ACTIVE,
        (s.ACTIVE, i.PARK): s.PARKED,
        (s.ACTIVE, i.RETIRE): s.RETIRING,
        (s.PARKED, i.TRY): s.BOOTING,
        (s.PARKED, i.RESTORE): s.ACTIVE,
        (s.PARKED, i.RETIRE): s.RETIRING,
        (s.RETIRING, i.RETIRE): s.RETIRING,
        (s.RETIRING, i.EMPTIED): s.GONE,
        (s.FAILED, i.EMPTIED): s.GONE,
    }
    for stage in (s.LOADING, s.BOOTING, s.PROBING, s.WARMING, s.STAGING, s.FAILED):
        table[stage, i.ABANDON] = s.FAILED
    return table


WORKER: dict[tuple[Phase, WorkerTrigger], Phase | NoTransition] = _worker_table()
GENERATION: dict[tuple[Stage, GenerationTrigger], Stage | NoTransition] = _generation_table()

CAPACITY = frozenset({Phase.ASKED, Phase.BOOTING, Phase.STANDBY, Phase.OPENING, Phase.SERVING})
"""Workers that serve or will; a draining one is never capacity."""

STAGED = frozenset({Phase.ASKED, Phase.BOOTING, Phase.STANDBY})
"""Workers that have never been told to accept."""

ACCEPTING = CAPACITY - STAGED
"""Workers that have been told to accept, and not to leave."""

TRIAL = frozenset({Stage.LOADING, Stage.BOOTING, Stage.PROBING, Stage.WARMING, Stage.STAGING})
"""Generations that have not committed."""


def next_phase(phase: Phase, trigger: WorkerTrigger) -> Phase | None:
    """The phase after the trigger; None for a worker that spoke out of turn. Raises `ImpossibleStep`."""
    cell = WORKER[phase, trigger]
    if cell is NoTransition.IMPOSSIBLE:
        msg = f"a worker in phase {phase.name} cannot meet {trigger.name}"
        raise ImpossibleStep(msg)
    return cell if isinstance(cell, Phase) else None


def next_stage(stage: Stage, trigger: GenerationTrigger) -> Stage:
    """The stage after the trigger. Raises `ImpossibleStep`."""
    cell = GENERATION[stage, trigger]
    if not isinstance(cell, Stage):
        msg = f"a generation in stage {stage.name} cannot meet {trigger.name}"
        raise ImpossibleStep(msg)
    return cell
