"""Brings one pool from its observed to its desired state: which workers are opened, which leave, how many are forked.

Level-triggered: it looks at what is, not at what happened, and may be called after every event. One rule serves
scaling, recycling, repairs and both ways of changing generations: fresh workers are those of the source generation
that shall stay; an old one leaves as soon as a fresh one serves in its place. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from srvd.core import transitions
from srvd.core.lifecycle import CAPACITY
from srvd.core.model import ExitReason, Phase, Replacement
from srvd.core.state.model import Generation, Part, Pool, Zygote
from srvd.core.state.workers import STAYS, STUCK, Worker
from srvd.core.turn import Turn

SURGE = 1
"""Workers above the desired number while old ones are being replaced one by one."""

SILENT_SECONDS = 10.0
"""What a worker that does not answer gets to finish its requests, at most. For silence there may be an end: it was
suspected soon."""

_LEAVE_FIRST = [
    (phase, group)
    for phase in (Phase.ASKED, Phase.BOOTING, Phase.STANDBY, Phase.OPENING, Phase.SERVING)
    for group in (STUCK, tuple(why for why in Replacement if why not in STUCK))
]


def reconcile(pool: Pool, turn: Turn) -> None:
    """Moves the pool towards its desired size."""
    source = pool.source
    if source is None:
        return
    surplus = pool.fresh - pool.target
    if surplus > 0:
        why = ExitReason.PAUSED if pool.paused else ExitReason.POOL_REMOVED if pool.removed else ExitReason.SCALED_DOWN
        for generation, worker in _first_to_leave([Part(source, CAPACITY, STAYS)], surplus, turn):
            transitions.retire(generation, worker, why, source.spec.drain_timeout, turn)
    for worker in reversed(source.workers.latest((Phase.STANDBY,), len(source.workers), STAYS)):
        transitions.open_gate(source, worker, turn)
    confirmed = source.workers.count((Phase.SERVING,), STAYS)
    replaced = pool.old - max(0, pool.target - confirmed)
    if replaced > 0:
        for generation, worker in _first_to_leave(pool.old_parts(), replaced, turn):
            _retire_replaced(pool, generation, worker, turn)
    for _ in range(_may_ask(pool, source, turn.now)):
        transitions.ask(pool, source, turn)


def _first_to_leave(parts: Iterable[Part], most: int, turn: Turn) -> list[tuple[Generation, Worker]]:
    """So many of these workers: first those that have not accepted yet, then the stuck, the idle, the youngest."""
    parts = list(parts)
    chosen: list[tuple[Generation, Worker]] = []
    for phase, group in _LEAVE_FIRST:
        missing = most - len(chosen)
        if not missing:
            break
        found = []
        for part in parts:
            if phase in part.phases:
                workers, whys = part.generation.workers, [why for why in group if why in part.replacements]
                enough = len(workers) if turn.busy else missing
                found += [(part.generation, worker) for worker in workers.latest((phase,), enough, whys)]
        found.sort(key=lambda one: (str(one[1].id) in turn.busy, -one[1].id.serial))
        chosen += found[:missing]
    return chosen


def _retire_replaced(pool: Pool, generation: Generation, worker: Worker, turn: Turn) -> None:
    """A worker whose successor serves."""
    spec = generation.spec
    silent, late = worker.replacement is Replacement.SILENT, worker.replacement is Replacement.OVERDUE
    seconds = min(spec.drain_timeout, SILENT_SECONDS) if silent else spec.drain_timeout
    late_after = spec.request_timeout if late else 0.0
    why = ExitReason.REPLACED if worker.stays else ExitReason(worker.replacement.value)
    transitions.retire(generation, worker, why, seconds, turn, late=late_after)
    # Counted like a death: a pool whose requests all hang must not look well.
    pool.restarts += worker.replacement in STUCK


def _may_ask(pool: Pool, source: Generation, now: float) -> int:
    """How many workers may be asked for."""
    if source.zygote is not Zygote.UP or now < pool.backoff.until:
        return 0
    fresh, old = pool.fresh, pool.old
    count = min(pool.target - fresh, transitions.IN_FLIGHT - source.count(Phase.ASKED))
    if old:
        expired = old == source.workers.count(CAPACITY, (Replacement.EXPIRED,))
        surge = 0 if expired and now < source.pace.until else SURGE
        count = min(count, pool.target + surge - fresh - old)
    if pool.backoff.strikes or pool.backoff.refusals:  # after a failure one attempt at a time
        trying = source.workers.count((Phase.ASKED, Phase.BOOTING), STAYS)
        count = min(count, 0 if trying else 1)
    return max(0, count)
