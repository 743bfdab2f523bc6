"""One worker as the daemon has it: ordered, running, and handed over to the next program.

Does nothing; `workers.py` does.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from srvd.core.model import WorkerId
from srvd.daemon.loop import Timer
from srvd.daemon.output import NOTHING, Output, Read
from srvd.daemon.process import Process
from srvd.daemon.stacks import Trace
from srvd.linux.process import Ended
from srvd.wire import family

__all__ = ["Carried", "Expected", "Worker"]


class Expected(NamedTuple):
    """A worker that was ordered and has no pid yet: our ends of what it will have."""

    id: WorkerId
    slot: int
    link: socket.socket
    output: Output
    stacks: int  # descriptor of the file for them


class Worker:
    """One worker. `ended` is how, as soon as anybody knows; `held` is for when it is ready; `trace` has its stacks."""

    __slots__ = ("ended", "heard", "held", "id", "killed", "process", "ready", "slot", "timer", "trace")

    def __init__(self, identity: WorkerId, slot: int, born: Process) -> None:
        self.id = identity
        self.slot = slot
        self.process = born
        self.ended: Ended | None = None
        self.killed = False
        self.ready = False
        self.heard = 0.0
        self.held: family.Message | None = None
        self.timer: Timer | None = None
        self.trace: Trace | None = None


class Carried(NamedTuple):
    """One worker as it is handed over. `pid` 0: ordered, not forked yet. `owed`: an order that it has not been told."""

    id: WorkerId
    slot: int
    pid: int = 0
    ready: bool = False
    killed: bool = False
    owed: bool = False
    read: Read = NOTHING
