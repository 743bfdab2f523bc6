"""One worker as the daemon has it: ordered, running, and handed over to the next program.

Orders nothing and hears nothing; `workers.py` does.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator

from srvd.core.model import Death
from srvd.daemon.children.output import NOTHING, Output, Read
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import Trace
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop, Timer
from srvd.ids import WorkerId
from srvd.linux import process
from srvd.linux.process import Ended
from srvd.linux.scoreboard import LaneFacts, Request
from srvd.record import Record
from srvd.wire import links

__all__ = ["Expected", "Worker", "WorkerState", "death_of", "reap_own", "told"]


MOST_SAID = 200
"""Messages in a second. A worker says a handful in its life, and rings when a request begins while nobody looks: after
that the daemon looks.
"""

MOST_LOUD = 10
"""Seconds in a row in which a worker may say more, before it is ended: what it costs by then is a hundredth of one."""


class Expected(Record):
    """A worker that was ordered and has no pid yet: our ends of what it will have."""

    id: WorkerId
    slot: int
    link: socket.socket
    output: Output
    stacks: int  # descriptor of the file for them


class WorkerState(Record):
    """One worker as it is handed over. `pid` 0: ordered, not forked yet. `owed`: an order that it has not been told."""

    id: WorkerId
    slot: int
    pid: int = 0
    ready: bool = False
    killed: bool = False
    owed: bool = False
    read: Read = NOTHING
    stacks: str = ""  # that it has told
    drain: links.Drain | None = None  # what it is owed, if it is that


class Worker:
    """One worker. `ended` is how, as soon as anybody knows; `held` is for when it is ready; `trace` has its stacks."""

    __slots__ = (
        "_loud", "_since", "ended", "heard", "held", "id", "killed", "leaves", "process", "ready", "said", "slot",
        "timer", "trace",
    )  # fmt: skip

    def __init__(self, identity: WorkerId, slot: int, born: Process) -> None:
        self.id = identity
        self.slot = slot
        self.process = born
        self.ended: Ended | None = None
        self.killed = False
        self.ready = False
        self.leaves = False  # it has said goodbye
        self.heard = 0.0
        self.held: links.Message | None = None
        self.timer: Timer | None = None
        self.trace: Trace | None = None
        self.said = 0  # messages, in this second
        self._since = 0.0
        self._loud = 0  # seconds in a row in which it said too much

    def may_talk(self, loop: Loop, hear: Callable[[Worker], None]) -> bool:
        """To be asked when it was heard. One that says more than a worker has to say is not listened to for the rest of
        the second; False: it does not end.
        """
        now, link = time.monotonic(), self.process.link
        if self.said < MOST_SAID or now - self._since >= 1.0:
            if now - self._since >= 1.0:
                self.said, self._since, self._loud = 0, now, 0
            return True
        self._loud += 1
        if self._loud > MOST_LOUD:
            return False
        if link is not None:
            loop.remove_reader(link.fileno())
            loop.call_later(self._since + 1.0 - now, self._listen, loop, link, hear)
        return True

    def _listen(self, loop: Loop, link: socket.socket, hear: Callable[[Worker], None]) -> None:
        self.said, self._since = 0, time.monotonic()
        if self.process.link is link:
            loop.add_reader(link.fileno(), hear, self)

    def cancel(self) -> None:
        """What was to happen to it later does not."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def carry(self, kept: FdTable) -> WorkerState:
        """What another program needs to go on with it; its descriptors go to `kept`."""
        read, told = self.process.carry(f"worker {self.id}", kept), "" if self.trace is None else self.trace.text
        owed, drain = self.held is not None, self.held if isinstance(self.held, links.Drain) else None
        return WorkerState(
            self.id, self.slot, self.process.pid, self.ready, self.killed, owed, read, links.clip(told), drain
        )  # fmt: skip

    @classmethod
    def resume(cls, one: WorkerState, born: Process) -> Worker:
        """The worker that `carry` told of."""
        worker = cls(one.id, one.slot, born)
        worker.ready, worker.killed = one.ready, one.killed
        worker.held = one.drain or (links.Reopen() if one.owed else None)
        worker.trace = Trace(one.stacks) if one.stacks else None
        return worker


def told(requests: Iterable[Request], trace: Trace) -> Iterator[str]:
    """The lines for the log about what it is in."""
    now = time.monotonic()
    for request in requests:
        yield f"srvd: in {request.line} for {now - request.began:.1f} s"
    if trace.problem:
        yield f"srvd: its stacks: {trace.problem}"
    yield from trace.text.splitlines()


def death_of(worker: Worker, ended: Ended, facts: LaneFacts, tail: str, *, out_of_memory: bool, unseen: bool) -> Death:
    """What is kept of its end. `unseen`: there was nobody to be told how."""
    return Death(
        exit_code=ended.exit_code,
        signal=ended.signal,
        out_of_memory=out_of_memory,
        request_line=facts.line,
        request_age=max(time.monotonic() - facts.began, 0.0) if facts.busy else 0.0,
        requests=facts.requests,
        stderr=tail,
        stacks="" if worker.trace is None else links.clip(worker.trace.text),
        unseen=unseen and ended == Ended(),
    )


def reap_own(pidfd: int) -> Ended | None:
    """How it ended, if it is a child of ours; None: it is its zygote's to tell."""
    try:
        return process.reap(pidfd)
    except OSError:  # ECHILD; EBADF: it is the one of `process.over`
        return None
