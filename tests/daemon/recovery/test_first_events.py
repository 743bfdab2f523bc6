"""Claims about the first events of a daemon that adopts a family."""

from __future__ import annotations

from srvd.core.events import Resumed, WorkerGone
from srvd.core.model import Death
from srvd.core.trace import read
from srvd.daemon.children.processes import Family
from srvd.daemon.children.worker import WorkerState
from srvd.daemon.fd_table import FdTable
from srvd.daemon.recovery.first_events import deaths
from tests.core.test_transcripts import FOLDER, Replay


def test_a_worker_whose_end_the_daemon_had_seen_and_not_told_is_gone() -> None:
    """Its last message may have ended an operation, which is saved at once; its death is told right after."""
    replay = Replay()
    for line in (FOLDER / "two-workers.txt").read_text().splitlines():
        now, mark, spelled = (*line.split(maxsplit=2), "", "", "")[:3]
        if mark == ">":
            replay.feed(read(spelled), float(now))
    state = replay.core.state
    first, second = (worker.id for worker in state.pools["web"].workers())
    family = Family({}, (), (WorkerState(first, 0, 4711),), ())
    assert deaths(state, family, FdTable(), {first, second}, {}) == []
    gone = deaths(state, family, FdTable(), {first}, {})
    assert gone == [WorkerGone(second, Death(unseen=True))]
    replay.feed(Resumed((first,)), 1000.0)
    for event in gone:
        replay.feed(event, 1000.0)
    assert second not in {worker.id for worker in state.pools["web"].workers()}
