"""The bake: what a new generation answers for some time after its commit, held against what the former one answered.

The rule is `is_worse`; its reason is in docs/explain/releases.md. Crash loops, which end a bake as well, are counted
elsewhere. Pure.
"""

from __future__ import annotations

from math import sqrt

from srvd.core.actions import CountAnswers
from srvd.core.event_names import EventName
from srvd.core.events import AnswersCounted
from srvd.core.model import Answers
from srvd.core.operations import outcome
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Bake, Pool
from srvd.core.turn import Turn
from srvd.ids import WorkerId

__all__ = ["LEAST_FAILED", "begin", "counted", "deadline", "is_watched", "is_worse", "look_before", "spoiled", "tick"]

LOOK = 1.0
"""Seconds from one look at the answers to the next. There is none but during a bake."""

LEAST_FAILED = 10
"""5xx answers below which nothing is concluded: a client that repeats a request makes a handful of one failure."""

LEAST_RECENT = 20
"""Answers of the former generation since the reload began that are enough to go by; else all that it ever gave are."""

_Z = 3.0
"""Standard deviations of each bound: chance is outside of one once in 740 looks, of both hardly ever."""

_GRACE = 1.0


def is_worse(new: Answers, former: Answers, points: int) -> bool:
    """Is the share of 5xx of `new` above that of `former` by more than `points` percentage points, chance aside?

    The lowest share that the new answers leave probable against the highest that the former ones do (Wilson's score
    interval). Few answers make wide intervals: without any of the former generation nothing is ever worse.
    """
    if new.failed < LEAST_FAILED:
        return False
    return _bound(new, -1) - _bound(former, 1) > points / 100


def _bound(answers: Answers, side: int) -> float:
    """One end of Wilson's interval: E. B. Wilson, Probable Inference, 1927. Holds for small numbers and shares, too."""
    n = answers.total
    if n == 0:
        return float(side > 0)
    p, z2 = answers.failed / n, _Z * _Z
    centre, spread = p + z2 / (2 * n), _Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return (centre + side * spread) / (1 + z2 / n)


def is_watched(pool: Pool) -> bool:
    return pool.spec.bake > 0 and pool.spec.bake_errors > 0


def look_before(pool: Pool, turn: Turn) -> None:
    """A reload begins: what the former generation answers from now on is the recent part."""
    pool.counted = ()
    if pool.source is not None and is_watched(pool):
        turn.do(CountAnswers(pool.name))


def begin(pool: Pool, former: int, turn: Turn) -> float:
    """The new generation has taken over. Seconds that the bake may take beyond its time, for the last count."""
    pool.bake = Bake(turn.now + pool.spec.bake, former)
    if not is_watched(pool):
        return 0.0
    turn.do(CountAnswers(pool.name))
    return _GRACE


def counted(pool: Pool, event: AnswersCounted, turn: Turn) -> None:
    bake = pool.bake
    if pool.trial is not None:
        pool.counted = event.counts
    if bake is None:
        return
    if bake.former_answers is None:
        recent = _sum(event, bake.former, dict(pool.counted))
        known = recent if recent.total >= LEAST_RECENT else _sum(event, bake.former, {})
        pool.bake = bake._replace(former_answers=known, look_at=turn.now + LOOK)
        pool.counted = ()
        return
    pool.bake = bake._replace(answers=_sum(event, pool.active or 0, {}))
    if bake.over and not spoiled(pool):
        _end(pool, turn)


def spoiled(pool: Pool) -> str:
    """Why its answers are to be believed worse than those of the former generation, or ""."""
    bake = pool.bake
    if bake is None or bake.former_answers is None or not is_watched(pool):
        return ""
    new, former = bake.answers, bake.former_answers
    if not is_worse(new, former, pool.spec.bake_errors):
        return ""
    return (
        f"{new.failed} of its {new.total} answers were 5xx while it baked, "
        f"of the former one's {former.failed} of {former.total}"
    )


def tick(pool: Pool, turn: Turn) -> None:
    """A look is due, or the end of the bake: after one more look."""
    bake = pool.bake
    if bake is None:
        return
    if bake.until <= turn.now:
        if bake.former_answers is None or bake.over or not is_watched(pool):
            _end(pool, turn)
        else:
            pool.bake = bake._replace(until=turn.now + _GRACE, look_at=NEVER, over=True)
            turn.do(CountAnswers(pool.name))
    elif bake.look_at <= turn.now:
        pool.bake = bake._replace(look_at=turn.now + LOOK)
        turn.do(CountAnswers(pool.name))


def deadline(pool: Pool) -> float:
    return NEVER if pool.bake is None else min(pool.bake.until, pool.bake.look_at)


def _end(pool: Pool, turn: Turn) -> None:
    bake, said = pool.bake, f"pool {pool.name}: {pool.name}@{pool.active} stays: no crash loop while it baked"
    pool.bake = None
    if bake is not None and bake.former_answers is not None:
        said += f", {bake.answers.failed} of {bake.answers.total} answers were 5xx"
    note = outcome.not_probed(pool)
    text = f"{said}; {note}" if note else said
    turn.note(EventName.GENERATION_BAKED, text, generation=f"{pool.name}@{pool.active}")


def _sum(event: AnswersCounted, generation: int, before: dict[WorkerId, Answers]) -> Answers:
    """Of the workers of one generation, without what each of them had answered before."""
    total = failed = 0
    for worker, answers in event.counts:
        if worker.generation == generation:
            known = before.get(worker, Answers())
            total += answers.total - known.total
            failed += answers.failed - known.failed
    return Answers(max(0, total), max(0, failed))
