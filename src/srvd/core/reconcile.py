"""Brings one pool from its observed to its desired state: which workers are opened, which leave, how many are forked.

Level-triggered: it looks at what is, not at what happened, and may be called after every event. One rule serves
scaling, recycling, repairs and both ways of changing generations: fresh workers are those of the source generation
that shall stay; an old one leaves as soon as a fresh one serves in its place. Pure.
"""

from __future__ import annotations

from srvd.core import transitions
from srvd.core.model import ExitReason, Phase, Replacement
from srvd.core.state.model import STUCK, Pool, Worker, Zygote
from srvd.core.turn import Turn

SURGE = 1
"""Workers above the desired number while old ones are being replaced one by one."""

SILENT_SECONDS = 10.0
"""What a worker that does not answer gets to finish its requests, at most. For silence there may be an end: it was
suspected soon."""

_LEAVE_FIRST = {Phase.ASKED: 0, Phase.BOOTING: 1, Phase.STANDBY: 2, Phase.OPENING: 3, Phase.SERVING: 4}


def reconcile(pool: Pool, turn: Turn, busy: frozenset[str] = frozenset()) -> None:
    """Moves the pool towards its desired size. `busy`: ids of workers that are in a request, as far as known."""
    source = pool.source
    if source is None:
        return
    fresh, old = pool.split()

    def leave_order(worker: Worker) -> tuple[int, bool, bool, int]:
        return (_LEAVE_FIRST[worker.phase], worker.replacement not in STUCK, str(worker.id) in busy, -worker.id.serial)

    surplus = len(fresh) - pool.target
    if surplus > 0:
        why = ExitReason.PAUSED if pool.paused else ExitReason.POOL_REMOVED if pool.removed else ExitReason.SCALED_DOWN
        for worker in sorted(fresh, key=leave_order)[:surplus]:
            transitions.retire(worker, why, source.spec.drain_timeout, turn)
            fresh.remove(worker)
    for worker in fresh:
        if worker.phase is Phase.STANDBY:
            transitions.open_gate(worker, source.spec, turn)
    confirmed = sum(worker.phase is Phase.SERVING for worker in fresh)
    replaced = len(old) - max(0, pool.target - confirmed)
    if replaced > 0:
        for worker in sorted(old, key=leave_order)[:replaced]:
            spec = pool.generations[worker.id.generation].spec
            silent, late = worker.replacement is Replacement.SILENT, worker.replacement is Replacement.OVERDUE
            seconds = min(spec.drain_timeout, SILENT_SECONDS) if silent else spec.drain_timeout
            late_after = spec.request_timeout if late else 0.0
            transitions.retire(worker, _exit_reason(worker), seconds, turn, late=late_after)
            # Counted like a death: a pool whose requests all hang must not look well.
            pool.restarts += worker.replacement in STUCK
            old.remove(worker)
    for _ in range(_may_ask(pool, turn.now, fresh, old)):
        transitions.ask(pool, source, turn)


def _exit_reason(worker: Worker) -> ExitReason:
    """The exit reason of a worker whose successor serves."""
    return ExitReason.REPLACED if worker.stays else ExitReason(worker.replacement.value)


def _may_ask(pool: Pool, now: float, fresh: list[Worker], old: list[Worker]) -> int:
    source = pool.source
    if source is None or source.zygote is not Zygote.UP or now < pool.breaker.until:
        return 0
    count = min(pool.target - len(fresh), transitions.IN_FLIGHT - source.count(Phase.ASKED))
    if old:
        worn = all(w.replacement is Replacement.WORN and w.id.generation == source.id.number for w in old)
        surge = 0 if worn and now < source.pace.until else SURGE
        count = min(count, pool.target + surge - len(fresh) - len(old))
    if pool.breaker.strikes or pool.breaker.refusals:  # after a failure one attempt at a time
        trying = any(worker.phase in (Phase.ASKED, Phase.BOOTING) for worker in fresh)
        count = min(count, 0 if trying else 1)
    return max(0, count)
