"""What every thread of workers and loading zygotes is doing, and the requests they are in: the answer of `srvctl dump`.

Changes nothing, and signals no process itself: `stack_file.py` does. The answer is bounded in time and size, and names
the reason for each process without stacks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from srvd.core.state.model import Generation, Pool, Zygote
from srvd.core.state.workers import Worker
from srvd.core.status import view
from srvd.daemon.children.stack_file import PATIENCE, Trace
from srvd.errors import Busy, NoSuchWorker
from srvd.ids import GenerationId, WorkerId
from srvd.linux.scoreboard import Request
from srvd.record import Record
from srvd.wire.stacks import threads_of

__all__ = ["Asker", "Dumps"]

MOST = 8
"""Dumps at a time: each keeps some memory for every process that it has asked."""

MOST_TEXT = 3 << 20
"""Characters of all stacks in one answer: a frame of the control socket holds 4 MiB."""

Map = dict[str, Any]
Reply = Callable[[Map], None]
Told = Callable[[Trace], None]


class Asker(Protocol):
    """A table of processes that can be asked for their stacks."""

    def ask_stacks(self, identity: Any, seconds: float, done: Told, /) -> bool:
        """Call `done` once, later, within about `seconds`. False: the process does not run, and nothing is called."""


class Workers(Asker, Protocol):
    def requests(self, worker: WorkerId) -> list[Request]:
        """The requests that the worker is in."""


class Zygotes(Asker, Protocol):
    def pids(self) -> dict[int, GenerationId]: ...


class Subject(Record):
    """One process that is to be asked."""

    identity: WorkerId | GenerationId
    pid: int
    state: str


class Dumps:
    """Asks processes, and answers when each has told its stacks or cannot."""

    def __init__(self, workers: Workers, zygotes: Zygotes) -> None:
        self._workers = workers
        self._zygotes = zygotes
        self._under_way = 0

    def subjects(self, pools: Iterable[Pool]) -> list[Subject]:
        """All workers with a pid, and the zygotes that load. The stacks of a zygote that waits for orders are known."""
        found = []
        for pool in pools:
            found += [_of_worker(worker) for worker in view.workers(pool)]
            found += [self._of_zygote(g) for g in pool.generations.values() if g.zygote is Zygote.LOADING]
        return found

    def worker(self, worker: Worker) -> Subject:
        """One worker. Raises `NoSuchWorker` while it has no process."""
        if worker.pid is None:
            hint = f"its zygote: srvctl dump {worker.id.generation_id}"
            raise NoSuchWorker(f"worker {worker.id} has no process yet", hint=hint)
        return _of_worker(worker)

    def zygote(self, generation: Generation) -> Subject:
        """One zygote, in any state. Raises `NoSuchWorker` if it has gone."""
        if generation.zygote is Zygote.GONE:
            raise NoSuchWorker(f"the zygote of {generation.id} is gone", hint="srvctl status")
        return self._of_zygote(generation)

    def begin(self, subjects: list[Subject], seconds: float, reply: Reply, *, total: int) -> None:
        """Ask all at once; `reply` is called when all have told their stacks, after about `seconds` at the latest; 0.0:
        the patience that a kill has.

        total: number of all processes; `subjects` may be a part. Raises `Busy` if `MOST` dumps are under way.
        """
        if self._under_way >= MOST:
            raise Busy(f"ask for stacks: {MOST} others are doing so", hint="try again in a second")
        self._under_way += 1
        _Dump(self._workers, self._zygotes, partial(self._end, reply), total).ask(subjects, seconds or PATIENCE)

    def _end(self, reply: Reply, result: Map) -> None:
        self._under_way -= 1
        reply(result)

    def _of_zygote(self, generation: Generation) -> Subject:
        pid = next((pid for pid, found in self._zygotes.pids().items() if found == generation.id), 0)
        return Subject(generation.id, pid, generation.zygote.value)


class _Dump:
    """One answer that is not complete yet."""

    def __init__(self, workers: Workers, zygotes: Zygotes, reply: Reply, total: int) -> None:
        self._workers = workers
        self._zygotes = zygotes
        self._reply = reply
        self._total = total
        self._entries: list[Map] = []
        self._missing = 0
        self._room = MOST_TEXT

    def ask(self, subjects: list[Subject], seconds: float) -> None:
        self._missing = 1  # until all have been asked
        for subject in subjects:
            entry = self._begin(subject)
            self._entries.append(entry)
            asker: Asker = self._workers if isinstance(subject.identity, WorkerId) else self._zygotes
            self._missing += 1
            if not asker.ask_stacks(subject.identity, seconds, partial(self._told, entry)):
                self._told(entry, Trace("", "it has ended", "ended"))
        self._one_less()

    def _begin(self, subject: Subject) -> Map:
        identity, now = subject.identity, time.monotonic()
        running = self._workers.requests(identity) if isinstance(identity, WorkerId) else []
        return {
            "id": str(identity),
            "kind": "worker" if isinstance(identity, WorkerId) else "zygote",
            "pool": identity.pool,
            "pid": subject.pid,
            "state": subject.state,
            "process": "",
            "requests": [
                {"lane": one.lane, "line": one.line, "age_s": round(max(0.0, now - one.began), 3)} for one in running
            ],
            "threads": [],
            "problem": "",
        }

    def _told(self, entry: Map, trace: Trace) -> None:
        entry["process"] = trace.state
        entry["problem"] = trace.problem
        if len(trace.text) <= self._room:
            self._room -= len(trace.text)
            entry["threads"] = threads_of(trace.text)
        else:
            entry["problem"] = "its stacks are too long for this answer: ask for it alone"
        self._one_less()

    def _one_less(self) -> None:
        self._missing -= 1
        if not self._missing:
            self._reply({"processes": self._entries, "total": self._total})


def _of_worker(worker: Worker) -> Subject:
    return Subject(worker.id, int(worker.pid or 0), worker.phase.value)
