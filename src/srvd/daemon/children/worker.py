"""One worker in the daemon's table: running, and handed over to the next program.

Sends no order and reads no message; `workers.py` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from srvd.core.model import Death
from srvd.daemon.children.output import NOTHING, Output, Read
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import Trace
from srvd.daemon.children.table import Entry
from srvd.daemon.fd_table import FdTable
from srvd.ids import WorkerId
from srvd.linux.processes.process import Ended
from srvd.linux.scoreboard import LaneFacts, Request
from srvd.record import Record
from srvd.wire import links

__all__ = ["TalkLimit", "Worker", "WorkerState", "death_of", "request_lines"]


MOST_SAID = 200
"""Messages in a second. A worker says a handful in its life, and rings when a request begins that is not watched: after
that the daemon looks.
"""

MOST_LOUD = 10
"""Seconds in a row in which a worker may say more before it is ended; by then it has cost a hundredth of a second."""


class WorkerState(Record):
    """One worker as it is handed over. `pid` 0: ordered, not forked yet. `owed`: an order that was not sent yet."""

    id: WorkerId
    slot: int
    pid: int = 0
    ready: bool = False
    killed: bool = False
    owed: bool = False
    read: Read = NOTHING
    stacks: str = ""  # that were dumped
    drain: links.Drain | None = None  # the owed order, if it is this one


class TalkLimit:
    """Limit of the messages of one worker: a worker that sends more is not listened to for the rest of the second."""

    __slots__ = ("_loud", "_said", "_since")

    def __init__(self) -> None:
        self._said = 0  # messages in this second
        self._since = 0.0  # beginning of this second, monotonic
        self._loud = 0  # seconds in a row with too many messages

    def count(self) -> None:
        """Count one message."""
        self._said += 1

    def pause(self, now: float) -> float | None:
        """Seconds in which the worker is not to be listened to; 0.0 to go on listening; None if it talks without end.

        now: monotonic time. Asked after each batch of messages.
        """
        if now - self._since >= 1.0:
            self._said, self._since, self._loud = 0, now, 0
        if self._said < MOST_SAID:
            return 0.0
        self._loud += 1
        return None if self._loud > MOST_LOUD else self._since + 1.0 - now

    def restart(self, now: float) -> None:
        """Begin a new second, after a pause."""
        self._said, self._since = 0, now


class Worker(Entry[WorkerId]):
    """One worker that runs.

    ready: it has said `Ready`. leaves: it has said `Bye`.
    heard: monotonic time of its last answer to a `Ping`; 0.0: none yet.
    pending: the order that is sent as soon as the worker can take it.
    """

    __slots__ = ("heard", "leaves", "pending", "ready", "slot", "talk")

    def __init__(self, identity: WorkerId, slot: int, started: Process) -> None:
        super().__init__(identity, started)
        self.slot = slot
        self.ready = False
        self.leaves = False
        self.heard = 0.0
        self.pending: links.Message | None = None
        self.talk = TalkLimit()

    def say_pending(self) -> None:
        """Send the order that has waited."""
        if self.pending is not None:
            self.process.say(self.pending)
            self.pending = None

    def save(self, fd_table: FdTable) -> WorkerState:
        """The state for the next program; the descriptors go to `fd_table`."""
        read, stacks = self.process.save(f"worker {self.id}", fd_table), "" if self.trace is None else self.trace.text
        owed, drain = self.pending is not None, self.pending if isinstance(self.pending, links.Drain) else None
        return WorkerState(
            self.id, self.slot, self.process.pid, self.ready, self.killed, owed, read, links.clip(stacks), drain
        )  # fmt: skip

    @classmethod
    def restore(cls, state: WorkerState, fd_table: FdTable, output: Callable[[int], Output]) -> Worker:
        """The worker that `save` described. Raises `Unsupported`, `OSError`.

        output: makes the reader of its stderr.
        """
        started = Process.restore(f"worker {state.id}", state.pid, fd_table, output)
        worker = cls(state.id, state.slot, started)
        worker.ready, worker.killed = state.ready, state.killed
        worker.pending = state.drain or (links.Reopen() if state.owed else None)
        worker.trace = Trace(state.stacks) if state.stacks else None
        return worker


def request_lines(requests: Iterable[Request]) -> Iterator[str]:
    """The lines for the log about the requests that a worker is in."""
    now = time.monotonic()
    for request in requests:
        yield f"srvd: in {request.line} for {now - request.began:.1f} s"


def death_of(ended: Ended, facts: LaneFacts, *, unseen: bool) -> Death:
    """The record of a worker's end. `unseen`: its zygote was gone, so the daemon may not know how the worker ended."""
    return Death(
        exit_code=ended.exit_code,
        signal=ended.signal,
        request_line=facts.line,
        request_age=max(time.monotonic() - facts.began, 0.0) if facts.busy else 0.0,
        requests=facts.requests,
        unseen=unseen and ended == Ended(),
    )
