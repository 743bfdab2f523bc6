"""The record of each death: written when a worker or zygote ends, kept with its pool, told apart from departures.

What a death means for the pool is `reports/losses.py`'s, how it is named `backoff.py`'s. Pure.
"""

from __future__ import annotations

from srvd.core import backoff
from srvd.core.events import ZygoteGone
from srvd.core.model import Cause, Death
from srvd.core.state.model import DEATHS, DeathRecord, Generation, Pool
from srvd.core.state.workers import Worker
from srvd.core.turn import Turn
from srvd.ids import WorkerId

MOST = 2**53 - 1
"""Of requests that are counted for a pool: messages and states hold 64 bits."""


def record_death(pool: Pool, worker: Worker, death: Death, turn: Turn) -> DeathRecord:
    record = DeathRecord(
        worker.id,
        worker.pid or 0,
        backoff.cause(worker, death),
        backoff.summary(worker, death),
        death,
        turn.now,
        turn.now - worker.asked,
        worker.ready_at is not None,
        worker.failure,
    )
    pool.answered = min(pool.answered + death.requests, MOST)  # what a worker says of itself may be nonsense
    if is_departure(record):
        brief = record._replace(death=death._replace(stderr="", stacks=""))  # the log has what it wrote
        pool.departures = (*pool.departures, brief)[-DEATHS:]
    else:
        pool.deaths.append(record)
    return record


def record_zygote_death(pool: Pool, generation: Generation, event: ZygoteGone, turn: Turn) -> None:
    """A zygote that ended by itself has a record like a worker's, with the serial 0."""
    name = WorkerId(pool.name, generation.id.number, 0)
    summary = f"the zygote died; {event.cause}"
    death = Death(stderr=event.stderr)
    pool.deaths.append(DeathRecord(name, 0, Cause.ZYGOTE, summary, death, turn.now, -1.0, generation.preloaded, ""))


def is_departure(record: DeathRecord) -> bool:
    """Did it leave as it was told, with nothing to explain?"""
    return record.cause in (Cause.RETIRED, Cause.RECYCLED, Cause.ABANDONED) and not record.traceback
