"""What answers say of one worker, operation or death: the core's view of it, and what only the daemon can add.

That is what is measured, times as Unix seconds, and folders that are gone. Chooses nothing: `backend.py` knows what was
asked. Measures nothing itself: figures come from `Measures`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from srvd.core.model import Kind, OpState
from srvd.core.state.model import DeathRecord, Generation, Operation, SupervisorState
from srvd.core.state.workers import Worker
from srvd.core.status import view
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import procfs
from srvd.linux.scoreboard import LaneFacts

__all__ = ["Measures", "brief", "brief_worker", "death", "full_worker", "names", "notices", "operation"]

Map = dict[str, Any]


class Measures(Protocol):
    """What is measured of a worker's process."""

    def facts(self, worker: WorkerId) -> LaneFacts:
        """What the worker's lanes on the scoreboard say; all zero when the worker has none."""

    def tally(self, worker: WorkerId) -> tuple[int, int]:
        """Counts of requests that the worker has answered, and that it is in: the cheap part of `facts`."""

    def rss(self, worker: WorkerId) -> int:
        """Resident memory in bytes; 0 when it cannot be read."""


def brief_worker(worker: Worker, measures: Measures, now: float) -> Map:
    """Returns what `status` says of each worker: what is cheap to find out."""
    requests, busy = measures.tally(worker.id)
    entry = view.worker_map(worker, now)
    entry["requests"] = requests
    entry["busy"] = busy
    entry["rss_bytes"] = measures.rss(worker.id)
    return entry


def full_worker(worker: Worker, measures: Measures, now: float) -> Map:
    """Returns what `workers` says of one."""
    facts = measures.facts(worker.id)
    return brief_worker(worker, measures, now) | {
        "pool": worker.id.pool,
        "connections": facts.connections,
        "in_flight": facts.event_loop.in_flight or facts.busy,
        "websockets": facts.event_loop.websockets,
        "loop_lag_s": round(facts.event_loop.lag, 3),
        "request": facts.line if facts.busy else "",
        "request_age_s": round(max(0.0, now - facts.began), 3) if facts.busy else 0.0,
        "sent_bytes": facts.sent,
        "responses_by_class": list(facts.by_class),
    }


def operation(state: SupervisorState, op: Operation) -> Map:
    """Returns all that is known of the operation."""
    entry = view.operation_map(op)
    entry["created_at"] = _unix(entry["created_at"])
    entry["ended_at"] = None if entry["ended_at"] is None else _unix(entry["ended_at"])
    for step in entry["timeline"]:
        step["at"] = _unix(step["at"])
    if op.order.kind is Kind.ROLLBACK and op.state is OpState.DONE:
        sources = {name: pool.source for name, pool in state.pools.items()}
        serving = [one for name, part in op.rollouts.items()
                   if (one := sources.get(name)) is not None and one.id.number == part.generation]  # fmt: skip
        entry["warnings"] += _without_folder(serving)
    return entry


def notices(state: SupervisorState) -> list[Map]:
    """Returns what an operator should look at although the pools serve: `text`, and `at` if it has a time."""
    serving = [pool.source for pool in state.pools.values() if pool.source is not None and not pool.removed]
    texts = view.notices(state) + _without_folder(serving)
    found: list[Map] = [{"text": text, "at": None} for text in texts]
    failed = view.last_failed(state)
    if failed is not None and failed.fault is not None and failed.ended is not None:
        summary = operation(state, failed)["summary"]
        text = f"operation {failed.id} ({summary}) failed: {failed.fault.message.partition(chr(10))[0]}"
        found.append({"text": text, "at": _unix(failed.ended)})
    return found


def death(record: DeathRecord) -> Map:
    """Returns what `why` says of one death."""
    return {**view.death_map(record), "at": _unix(record.at)}


def _without_folder(generations: Iterable[Generation]) -> list[str]:
    """Returns a sentence for each generation whose folder was deleted: files it has not read yet are missing."""
    return [
        f"{one.id}: {one.folder} is gone: its templates, and modules that it imports later, are not found "
        "(`srvctl reload` loads what is there)"
        for one in generations
        if procfs.is_in_deleted_folder(next((worker.pid for worker in one.workers.values() if worker.pid), 0))
    ]


def names(record: DeathRecord) -> tuple[str, ...]:
    """The names by which `srvctl why` finds this death."""
    pool, generation, serial = record.worker
    if not serial:
        return (str(GenerationId(pool, generation)),)
    return (str(record.worker), f"{pool}/{generation}.{serial}", str(record.pid))


def brief(entry: Mapping[str, Any]) -> Map:
    """Leaves out timeline and traceback: a list of two hundred operations has to fit into one answer."""
    short = {name: value for name, value in entry.items() if name != "timeline"}
    if short["error"] is not None:
        detail = {name: value for name, value in short["error"]["detail"].items() if name != "traceback"}
        short["error"] = {**short["error"], "detail": detail}
    return short


def _unix(monotonic: float) -> float:
    """Converts a time of the monotonic clock to Unix seconds, by what the wall clock says now."""
    return round(time.time() - time.monotonic() + monotonic, 3)
