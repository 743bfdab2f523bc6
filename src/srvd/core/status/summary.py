"""What a service manager is told of the whole daemon: one state and one sentence for people.

Sends nothing and does not know when it was told last. Pure.
"""

from __future__ import annotations

from enum import Enum

from srvd.core import backoff
from srvd.core.model import Fault, Kind, OpState, Phase, PoolState
from srvd.core.operations import outcome
from srvd.core.state.model import Operation, Pool, SupervisorState
from srvd.core.status import view
from srvd.quoting import without_quotes
from srvd.record import Record

__all__ = ["Bulletin", "Condition", "bulletin"]


_CHANGES = (Kind.RELOAD, Kind.ROLLBACK, Kind.UPGRADE)
"""Orders that put other code into force: each is a reload to a service manager."""


class Condition(Enum):
    """The states that a service manager knows."""

    STARTING = "starting"
    READY = "ready"
    RELOADING = "reloading"
    STOPPING = "stopping"


class Bulletin(Record):
    condition: Condition
    sentence: str

    @property
    def is_lasting(self) -> bool:
        """Is nothing under way that ends by itself?"""
        return self.condition is Condition.READY


def bulletin(state: SupervisorState) -> Bulletin:
    """How things stand."""
    if state.doomed is not None:
        return Bulletin(Condition.STOPPING, f"could not start: {_clip(state.doomed)}")
    if state.stop is not None:
        return Bulletin(Condition.STOPPING, _stopping(state))
    pools = "; ".join(_pool(state, pool) for pool in state.pools.values() if not pool.removed)
    if not state.started:
        return Bulletin(Condition.STARTING, f"starting: {pools}" if pools else "starting")
    change = _change_under_way(state)
    if change is not None:
        phase, done, total = change.progress
        step = f"{phase or 'begun'} ({done} of {total})" if total else phase or "begun"
        return Bulletin(Condition.RELOADING, f"{change.order.kind.value} {change.id}: {step}; {pools}")
    failed = _failed_reload(state)
    return Bulletin(Condition.READY, f"{pools}; {failed}" if failed else pools)


def _stopping(state: SupervisorState) -> str:
    every = [one for pool in state.pools.values() for one in pool.generations.values()]
    left = sum(len(one.workers) - one.count(Phase.KILLED) for one in every)
    return f"stopping: {_workers(left)} to finish" if left else "stopping"


def _pool(state: SupervisorState, pool: Pool) -> str:
    current = view.pool_state(state, pool)
    if current is PoolState.PAUSED:
        return f"{pool.name} is paused"
    if not pool.target:
        text = outcome.nobody(pool).replace(";", ",")
    elif pool.serving >= pool.target:
        text = f"{pool.name}: {_workers(pool.serving)} {'serves' if pool.serving == 1 else 'serve'}"
    else:
        text = f"{pool.name}: {pool.serving} of {_workers(pool.target)} serve"
    if current is PoolState.CRASHING:
        return f"{text}, it is crashing: {_line(pool.backoff.reason)}"
    if pool.is_lost:
        text = f"{text}, its zygote is being replaced"
    return f"{text}; {_line(pool.taken_back)}" if pool.taken_back else text


def _change_under_way(state: SupervisorState) -> Operation | None:
    running = (op for op in state.open_operations if op.state is not OpState.QUEUED)
    return next((op for op in running if op.order.kind in _CHANGES), None)


def _failed_reload(state: SupervisorState) -> str:
    """Says, until the next reload, that the last one failed: the code on disk is not the code that serves."""
    ended = (op for op in reversed(state.operations.values()) if op.order.kind is Kind.RELOAD and op.state.ended)
    last = next(ended, None)
    if last is None or last.fault is None or last.state not in (OpState.FAILED, OpState.ROLLED_BACK):
        return ""
    return f"reload {last.id} failed: {_clip(last.fault)}"


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def _clip(fault: Fault) -> str:
    return _line(fault.message)


def _line(text: str) -> str:
    """Its first line, without what it quotes of an application: every user of the machine may read it."""
    line = without_quotes(text.strip(), "(see the log)").partition("\n")[0]
    return line if len(line) <= backoff.SENTENCE else f"{line[: backoff.SENTENCE]}…"
