"""Workers that were ordered and have no pid yet: each has a slot and the daemon's ends of its descriptors.

Emits no event. A worker leaves this table once: its zygote has forked it, or it will not be forked.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from srvd.daemon.children.commons import Commons
from srvd.daemon.children.output import Output
from srvd.daemon.children.process import Process
from srvd.daemon.children.starting.fork import Expected, order_fork
from srvd.daemon.children.worker import Worker, WorkerState
from srvd.daemon.fd_table import FdTable
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds

__all__ = ["OrderedWorkers"]

_FULL = "the scoreboard has no free slot: max_workers are running"


class OrderedWorkers:
    def __init__(self, commons: Commons, line: Callable[[WorkerId, str], None]) -> None:
        """line: called with each line that a worker writes to stderr."""
        self._commons = commons
        self._line = line
        self._expected: dict[WorkerId, Expected] = {}

    def __contains__(self, worker: WorkerId) -> bool:
        return worker in self._expected

    def generations(self) -> set[GenerationId]:
        """The generations that a worker was ordered of."""
        return {worker.generation_id for worker in self._expected}

    def order(self, worker: WorkerId, zygote: Process | None) -> str:
        """Have the zygote fork the worker. Returns the reason of a refusal; "" if the order was sent."""
        if zygote is None:
            return "no zygote of it forks"
        common = self._commons.of(worker.generation_id)
        if not common.free:
            return _FULL
        made = order_fork(worker, common, zygote, partial(self._line, worker))
        if isinstance(made, str):
            return made
        common.free.pop()  # the slot of `made`
        self._expected[worker] = made
        return ""

    def born(self, worker: WorkerId, pid: int, pidfd: int) -> Worker:
        """The worker that its zygote has forked. Slot and descriptors are the worker's from now on."""
        made = self._expected.pop(worker)
        return Worker(worker, made.slot, Process(pid, pidfd, made.link, made.output, made.stacks))

    def drop(self, worker: WorkerId) -> bool:
        """Close the daemon's ends of a worker that will not be forked, and free its slot. False: it is not ordered."""
        expected = self._expected.pop(worker, None)
        if expected is not None:
            fds.close_link(expected.link)
            fds.close_all([expected.output.fd, expected.stacks])
            self._commons.of(worker.generation_id).free.append(expected.slot)
        return expected is not None

    def drop_all(self, generation: GenerationId | None = None) -> None:
        """Drop the workers of the generation; without one, all."""
        for worker in list(self._expected):
            if generation in (None, worker.generation_id):
                self.drop(worker)

    def save(self, fd_table: FdTable) -> tuple[WorkerState, ...]:
        """The state for the next program; the descriptors go to `fd_table`."""
        for worker, expected in self._expected.items():
            fd_table.give(f"worker {worker} link", expected.link.fileno())
            fd_table.give(f"worker {worker} stderr", expected.output.fd)
            fd_table.give(f"worker {worker} stacks", expected.stacks)
        return tuple(WorkerState(worker, expected.slot) for worker, expected in self._expected.items())

    def restore(self, state: WorkerState, fd_table: FdTable) -> None:
        """Wait for a worker that `save` described. Raises `Unsupported`, `OSError`."""
        name = f"worker {state.id}"
        link = socket.socket(fileno=fd_table.take(f"{name} link"))
        output = Output(fd_table.take(f"{name} stderr"), partial(self._line, state.id), state.read)
        self._expected[state.id] = Expected(state.slot, link, output, fd_table.take(f"{name} stacks"))
