"""Claims about what is measured of workers and of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from srvd.core.model import Phase, Pid, PoolSpec, Revision
from srvd.core.state.model import Generation, Pool, SupervisorState
from srvd.core.state.workers import Worker
from srvd.daemon.watch import headroom
from srvd.ids import GenerationId, WorkerId
from srvd.linux.scoreboard import LaneFacts
from tests.support.performer import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def test_the_memory_of_a_worker_is_what_the_system_says_it_is(stage: Stage) -> None:
    worker = stage.fork(stage.load(), 1)
    workers = stage.processes.workers
    for _ in range(2):
        assert workers.rss(worker) == pytest.approx(psutil.Process(stage.pid(worker)).memory_info().rss, rel=0.05)
    stage.kill(worker)
    assert workers.rss(worker) == 0
    assert workers.facts(worker) == LaneFacts()


def state_with(stage: Stage, worker: WorkerId) -> SupervisorState:
    """A state in which this worker serves."""
    spec = PoolSpec("web")
    pool = Pool(spec)
    generation = Generation(GenerationId(worker.pool, worker.generation), spec, Revision(1))
    generation.workers[1] = Worker(worker, 0.0, 0.0, Phase.SERVING, Pid(stage.pid(worker)))
    pool.generations[generation.id.number] = generation
    found = SupervisorState(limit=10)
    found.pools["web"] = pool
    return found


def test_headroom_says_what_is_there_and_what_one_more_worker_costs(stage: Stage) -> None:
    worker = stage.fork(stage.load(), 1)
    web, other = headroom.headroom(state_with(stage, worker), ["web", "other"])
    assert (web[0], other[0]) == ("web", "other")
    assert web[1].available_bytes == other[1].available_bytes > 1 << 20
    # A generation of one worker: its proportional size and as much for its zygote.
    assert web[1].worker_bytes == pytest.approx(2 * _pss(stage.pid(worker)), rel=0.1)
    assert other[1].worker_bytes == 0


def test_a_limit_of_the_control_group_bounds_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headroom, "memory_left", lambda: 12345)
    ((_, web),) = headroom.headroom(SupervisorState(limit=10), ["web"])
    assert web.available_bytes == 12345


def test_what_cannot_be_measured_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise FileNotFoundError("/proc/meminfo")  # as under ProcSubset=pid

    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    assert headroom.headroom(SupervisorState(limit=10), ["web"]) == ()


def _pss(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (line,) = (line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024
