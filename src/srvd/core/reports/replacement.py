"""Why a worker that serves is replaced without an order: stuck in a request, worn out, grown too large.

Sends no worker away: `reconcile.py` does, when the replacement serves. Pure.
"""

from __future__ import annotations

from srvd.core import backoff, transitions
from srvd.core.actions import TellWorker, WorkerCommand
from srvd.core.event_names import EventName
from srvd.core.events import RequestOverdue, WorkerOutgrew
from srvd.core.model import ExitReason, Phase, Replacement
from srvd.core.state.deadlines import NEVER
from srvd.core.state.model import Generation, MemoryPolicy, Pace, Pool
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn

__all__ = ["outgrew", "overdue", "pardon", "stuck", "wears_out"]

AT_ONCE = 60.0
"""Seconds of readiness. A worker that is over max_rss earlier has been so nearly from its start, and so will its
successor."""

LONGEST_WAIT = 3600.0
"""Seconds between two rounds of replacements that do not help."""


def overdue(generation: Generation, worker: Worker, event: RequestOverdue, turn: Turn) -> None:
    """The application gives nothing for a request. With one thread nothing else can go on in the worker: once it has
    been replaced for that, there is nothing to wait for.
    """
    if worker.phase is Phase.DRAINING and worker.exit_reason is ExitReason.OVERDUE:
        if generation.spec.threads == 1:
            text = f"worker {worker.id} has nothing else to finish; killing it"
            turn.note(EventName.WORKER_DRAIN_TIMEOUT, text, worker=str(worker.id))
            transitions.kill(generation, worker, ExitReason.OVERDUE, turn, dump=True)
        return
    text = f"has given nothing to {event.line} for {event.age:.0f} s"
    stuck(generation, worker, Replacement.OVERDUE, text, turn, request=event.line)


def stuck(generation: Generation, worker: Worker, why: Replacement, text: str, turn: Turn, **fields: str) -> None:
    """It does not get on: it shall say where it is."""
    text = f"worker {worker.id} {text}; its stacks follow, a replacement boots"
    name = EventName.WORKER_SILENT if why is Replacement.SILENT else EventName.WORKER_REQUEST_TIMEOUT
    turn.note(name, text, worker=str(worker.id), **fields)
    turn.do(TellWorker(worker.id, WorkerCommand.DUMP))
    if worker.is_capacity:
        generation.workers.replace(worker, why)


def pardon(generation: Generation, worker: Worker, turn: Turn) -> None:
    """It was silent, and has answered: if its replacement does not serve yet, it stays."""
    if worker.replacement is Replacement.SILENT and worker.phase is Phase.SERVING:
        generation.workers.replace(worker, Replacement.NONE)
        text = f"worker {worker.id} answers again, and stays"
        turn.note(EventName.WORKER_ANSWERED, text, worker=str(worker.id))


def wears_out(pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn) -> None:
    """It has served long enough. `reason`: "served 1000 requests"."""
    _pace(pool, generation, worker, reason, turn)
    _replace(generation, worker, f"has {reason}", f"had {reason}", turn)


def outgrew(pool: Pool, generation: Generation, worker: Worker, event: WorkerOutgrew, turn: Turn) -> None:
    """It is over max_rss; told at every look, as long as it is.

    The first of a generation are replaced at once. If a replacement is too large within a minute, too, the limit is
    smaller than the application: that is said once, and the next round waits: 1 min, 2, 4, … up to an hour.
    """
    if worker.phase is not Phase.SERVING or not worker.stays or generation.id.number != pool.active:
        return
    if not worker.outgrown:
        worker.outgrown = True
        _revise_policy(pool, generation, worker, event, turn)
    policy = generation.memory_policy
    is_new = 0 < policy.since < worker.id.serial and _lived(worker, turn.now) < AT_ONCE
    if turn.now < policy.until or is_new:
        return
    generation.memory_policy = policy._replace(since=policy.since or pool.serials)
    _replace(generation, worker, f"is over max_rss: {_sizes(event)}", f"was over max_rss: {_sizes(event)}", turn)


def _replace(generation: Generation, worker: Worker, why: str, why_then: str, turn: Turn) -> None:
    """It serves on until its replacement does, one worker at a time."""
    generation.workers.replace(worker, Replacement.EXPIRED)
    worker.expired = why_then
    turn.note(EventName.WORKER_WORN, f"worker {worker.id} {why}; a replacement boots", worker=str(worker.id))


def _pace(pool: Pool, generation: Generation, worker: Worker, reason: str, turn: Turn) -> None:
    """Worn within a second of readiness is as good as dead within one: the rounds of such replacements wait as those
    of a crash loop do. Meanwhile the worn ones serve.
    """
    pace, lived = generation.pace, _lived(worker, turn.now)
    if lived >= backoff.HEALTHY_AFTER:
        generation.pace = Pace()
        return
    if worker.asked < pace.last:  # of the same round
        return
    strikes = pace.strikes + 1
    until = turn.now + backoff.delay(strikes, worker.id.serial)
    text = f"worker {worker.id} has {reason} {lived:.3f} s after it was ready"
    generation.pace = Pace(strikes, turn.now, until if until > turn.now else -NEVER, text if strikes > 1 else "")
    if strikes == backoff.CRASHING_STRIKES:
        text += f": workers of pool {pool.name} are worn as soon as they serve, and are replaced ever more rarely, "
        text += f"every {backoff.CAP:.0f} s at last. Raise max_age or max_requests"
        turn.note(EventName.POOL_WORN_AT_ONCE, text, pool=pool.name, worker=str(worker.id))


def _revise_policy(pool: Pool, generation: Generation, worker: Worker, event: WorkerOutgrew, turn: Turn) -> None:
    """Does replacing help? One strike a round, and only for those that came to replace others."""
    policy = generation.memory_policy
    lived = _lived(worker, turn.now)
    if lived >= AT_ONCE:
        generation.memory_policy = MemoryPolicy(policy.since)
    elif policy.since and worker.id.serial > policy.since and turn.now >= policy.until:
        wait = min(LONGEST_WAIT, AT_ONCE * 2 ** min(policy.strikes, 10))
        reason = f"max_rss is too small: a new worker has {_sizes(event)} after {lived:.0f} s"
        generation.memory_policy = MemoryPolicy(policy.since, policy.strikes + 1, turn.now + wait, reason)
        if not policy.strikes:
            text = (
                f"worker {worker.id} is over max_rss: {_sizes(event)}, {lived:.0f} s after it was ready: "
                f"replacing does not help. Raise max_rss of pool {pool.name}, or load less; the next attempt in "
                f"{wait:.0f} s, then ever more rarely"
            )
            turn.note(EventName.POOL_OUTGROWN, text, pool=pool.name, worker=str(worker.id))


def _lived(worker: Worker, now: float) -> float:
    """Seconds since it was ready."""
    return now - (worker.ready_at or now)


def _sizes(event: WorkerOutgrew) -> str:
    """As "612 MiB of 512 MiB"."""
    return " of ".join(f"{size / (1 << 20):.1f}".removesuffix(".0") + " MiB" for size in (event.rss, event.limit))
