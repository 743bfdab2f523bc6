"""Claims about how many forks the core asks for at a time, and what it says of those that were refused."""

from __future__ import annotations

from typing import Any

from srvd.core.actions import Fork
from srvd.core.events import ForkRefused, Ordered, Started, Tick, WorkerForked, WorkerReport, WorkerSaid, ZygoteLoaded
from srvd.core.model import Actor, Kind, OpId, OpState, Order, Pid, PoolSpec, Revision
from srvd.core.status.view import pool_map
from srvd.core.supervisor import Supervisor
from srvd.core.transitions import IN_FLIGHT
from srvd.ids import GenerationId, WorkerId

ME = Actor(0, 1, "root")


class Daemon:
    """A core and a zygote that forks in the order it was asked, when it is told to."""

    def __init__(self, workers: int) -> None:
        self.core = Supervisor()
        self.asked: list[WorkerId] = []
        self.now = 0.0
        self.tell(Started(Revision(1), (PoolSpec("web", workers=workers),), ME))
        self.tell(ZygoteLoaded(GenerationId("web", 1), preloaded=True))

    def tell(self, event: Any) -> None:
        for action in self.core.handle(event, self.now):
            if isinstance(action, Fork):
                self.asked.append(action.worker)

    def fork(self) -> None:
        """One more worker comes to be, and serves."""
        worker = self.asked.pop(0)
        self.tell(WorkerForked(worker, Pid(1000 + worker.serial)))
        self.tell(WorkerSaid(worker, WorkerReport.READY))
        self.tell(WorkerSaid(worker, WorkerReport.SERVING))

    def fork_all(self) -> int:
        """The most that were asked for at a time."""
        most = len(self.asked)
        while self.asked:
            self.fork()
            most = max(most, len(self.asked))
        return most

    def scale(self, size: int) -> OpId:
        self.tell(Ordered(1, Order(Kind.SCALE, "web", size), ME))
        return OpId(self.core.state.count)

    def trouble(self) -> str:
        return str(pool_map(self.core.state, self.core.state.pools["web"])["trouble"])


def test_a_zygote_is_asked_for_no_more_workers_than_its_link_holds_orders() -> None:
    daemon = Daemon(workers=300)
    assert daemon.fork_all() == IN_FLIGHT
    op = daemon.scale(500)
    assert daemon.fork_all() == IN_FLIGHT
    ended = daemon.core.operation(op)
    assert ended is not None
    assert ended.state is OpState.DONE
    assert daemon.core.state.pools["web"].serving == 500


def test_a_refused_fork_is_no_trouble_any_more_when_the_next_one_has_come_to_be() -> None:
    daemon = Daemon(workers=1)
    daemon.fork_all()
    daemon.scale(2)
    daemon.tell(ForkRefused(daemon.asked.pop(), "fork: Cannot allocate memory"))
    assert "Cannot allocate memory" in daemon.trouble()
    daemon.now = 10.0
    daemon.tell(Tick())
    daemon.fork_all()
    assert daemon.trouble() == ""
