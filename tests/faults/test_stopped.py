"""Processes that stand still for a while: one of them or all, by a signal or by a debugger. Who stands still for good
is in test_workers.py and test_stuck.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from srvd.daemon.watch.liveness import LOOK, PATIENCE
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, toml
from tests.support.debugger import held
from tests.support.fault import under_load
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

THREADS = pytest.mark.parametrize("threads", [1, 4], ids=["one thread", "threads"])


def _is_stopped(pid: int) -> bool:
    return str(psutil.Process(pid).status()) == psutil.STATUS_STOPPED


def _woken(processes: Iterable[psutil.Process]) -> int:
    """How often they went to sleep, all together."""
    return sum(process.num_ctx_switches().voluntary for process in processes)


def test_a_stopped_worker_goes_on_though_no_client_comes(srvd: Srvd) -> None:
    """Its zygote is told by the kernel. Nobody waits for the worker, nobody looks at a clock before or after."""
    victim = srvd.serving()[0]
    os.kill(victim["pid"], signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: _is_stopped(victim["pid"]))
    wait_for(lambda: not _is_stopped(victim["pid"]))
    print(f"SIGSTOP of an idle worker: goes on after {1e3 * (time.monotonic() - began):.0f} ms")  # noqa: T201
    srvd.wait_logged(f"worker {victim['id']} was stopped by a signal; it is continued")
    assert victim["id"] in srvd.names()
    assert srvd.deaths() == []
    family = [psutil.Process(srvd.pid), *srvd.zygotes()]

    def rest() -> bool:
        before = _woken(family)
        return stays(lambda: _woken(family) == before, 2.0, every=0.1)

    wait_for(rest, within=30)


@THREADS
def test_a_worker_stopped_under_load_answers_all_it_had(starter: Starter, threads: int) -> None:
    """The only one: clients wait, nobody accepts. It is not replaced, for there is nothing wrong with it."""
    srvd = starter(config=toml(f"workers = 1\nthreads = {threads}"))
    with under_load(srvd, f"SIGSTOP of the only worker, threads = {threads}") as fault:
        (victim,) = srvd.serving()
        fault.strikes()
        os.kill(victim["pid"], signal.SIGSTOP)
        wait_for(lambda: _is_stopped(victim["pid"]))
        fault.repaired(lambda: not _is_stopped(victim["pid"]))
        assert srvd.get().startswith(f"one {victim['id']} ")
    assert fault.lost() == []
    assert srvd.deaths() == []


def test_workers_stopped_again_and_again_lose_nothing(srvd: Srvd) -> None:
    with under_load(srvd, "SIGSTOP of both workers, three times") as fault:
        for _ in range(3):
            for worker in srvd.serving():
                os.kill(worker["pid"], signal.SIGSTOP)
            wait_for(lambda: all(_is_stopped(worker["pid"]) for worker in srvd.serving()))
            wait_for(lambda: not any(_is_stopped(worker["pid"]) for worker in srvd.serving()))
            fault.load.more(8)
    assert fault.lost() == []
    assert srvd.deaths() == []


def test_a_stopped_worker_is_continued_over_an_upgrade(srvd: Srvd) -> None:
    victim = srvd.serving()[0]
    os.kill(victim["pid"], signal.SIGSTOP)
    assert srvd.ctl("upgrade").returncode == 0
    wait_for(lambda: not _is_stopped(victim["pid"]))
    assert victim["id"] in srvd.names()


@pytest.mark.parametrize("orphaned", [False, True], ids=["its zygote lives", "its daemon has died"])
def test_a_worker_stopped_while_nobody_can_hear_of_it_is_continued_later(srvd: Srvd, orphaned: bool) -> None:
    """Its zygote is stopped, or the daemon is away: whoever can tell, tells as soon as it can."""
    (zygote,) = srvd.zygotes()
    victim = srvd.serving()[0]
    if orphaned:
        srvd.die()
    else:
        zygote.suspend()
    os.kill(victim["pid"], signal.SIGSTOP)
    wait_for(lambda: _is_stopped(victim["pid"]))
    if orphaned:
        srvd.start()
    else:
        zygote.resume()
    wait_for(lambda: not _is_stopped(victim["pid"]))
    assert victim["id"] in srvd.names()


def test_a_stopped_worker_whose_zygote_is_stopped_too_is_found_by_the_first_client(starter: Starter) -> None:
    """Nobody is there to tell. The client waits for two seconds, and is answered by the worker itself."""
    srvd = starter(config=toml("workers = 1"))
    (zygote,), (victim,) = srvd.zygotes(), srvd.serving()
    zygote.suspend()
    os.kill(victim["pid"], signal.SIGSTOP)
    wait_for(lambda: _is_stopped(victim["pid"]))
    assert srvd.get().startswith(f"one {victim['id']} ")
    zygote.resume()
    assert srvd.deaths() == []


# -- a person looks ------------------------------------------------------------------------------------------------


@THREADS
def test_a_worker_that_a_debugger_holds_is_left_alone(starter: Starter, threads: int) -> None:
    """In a request that is long overdue, and with a client that waits: a person has it."""
    srvd = starter(config=toml(f'workers = 1\nthreads = {threads}\nrequest_timeout = "1s"'))
    (victim,) = srvd.serving()
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/0.5")
        wait_for(lambda: srvd.serving()[0]["busy"])
        with held(victim["pid"]):
            waiting = pool.submit(srvd.get)
            if threads == 1:
                assert stays(lambda: srvd.names() == {victim["id"]}, (PATIENCE + 3) * LOOK, every=0.1)
                assert not waiting.done()
            else:  # threads that are not held go on
                assert waiting.result().startswith(f"one {victim['id']} ")
        assert slow.result().startswith(f"one {victim['id']} ")
        assert waiting.result().startswith(f"one {victim['id']} ")
    assert srvd.deaths() == []


def test_that_a_debugger_holds_a_worker_is_told_when_clients_wait(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"))
    (victim,) = srvd.serving()
    with ThreadPoolExecutor() as pool, held(victim["pid"]):
        waiting = pool.submit(srvd.get)
        srvd.wait_logged(f"worker {victim['id']} is held by a debugger; it is left alone, and its clients wait")
        assert stays(lambda: srvd.names() == {victim["id"]}, (PATIENCE + 2) * LOOK, every=0.1)
        os.kill(victim["pid"], signal.SIGSTOP)  # the debugger's to decide, too
        assert not waiting.done()
    assert waiting.result().startswith(f"one {victim['id']} ")
    assert srvd.logged().count("is held by a debugger") == 1
    assert srvd.deaths() == []


# -- all of them ---------------------------------------------------------------------------------------------------


def _stop_all(srvd: Srvd) -> list[psutil.Process]:
    """The daemon last, so that it sees nobody stop; who is stopped."""
    family = [*srvd.family(), psutil.Process(srvd.pid)]
    for process in reversed(family):
        process.suspend()
    return list(reversed(family))


def _stand_still(srvd: Srvd, seconds: float) -> None:
    """All processes, as in a container that is paused; the daemon goes on first."""
    stopped = _stop_all(srvd)
    time.sleep(seconds)  # nothing can be waited for: nobody moves
    for process in stopped:
        process.resume()
        time.sleep(0.3)


def test_a_pause_of_all_processes_is_no_requests_fault(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nrequest_timeout = "3s"'))
    before = srvd.names()
    with ThreadPoolExecutor() as pool, under_load(srvd, "everybody stands still for 4 s") as fault:
        slow = pool.submit(srvd.get, "/sleep/1.5")
        wait_for(lambda: _busy_in(srvd, "/sleep/1.5"))
        fault.strikes()
        _stand_still(srvd, 4)
        fault.load.more(8)
        assert slow.result().startswith("one ")
    assert fault.lost() == []
    assert srvd.names() == before
    assert srvd.deaths() == []
    assert "has given nothing" not in srvd.logged()


def _busy_in(srvd: Srvd, path: str) -> list[Any]:
    return [worker for worker in srvd.call("workers")["workers"] if path in worker["request"]]


def test_a_pause_of_all_processes_is_no_silence(starter: Starter) -> None:
    """A client has come, the daemon has asked; nobody could answer."""
    srvd = starter(config=toml("workers = 1"))
    (victim,) = srvd.serving()
    with ThreadPoolExecutor() as pool:
        os.kill(victim["pid"], signal.SIGSTOP)
        waiting = pool.submit(srvd.get)
        _stand_still(srvd, LOOK * (PATIENCE + 2))
        assert waiting.result().startswith(f"one {victim['id']} ")
    assert srvd.names() == {victim["id"]}
    assert srvd.deaths() == []


def test_a_pause_of_all_processes_fails_no_reload(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nboot_timeout = "2s"'))
    srvd.good("two", apps.SLOW.format(seconds=1.5))
    with under_load(srvd, "everybody stands still for 4 s in a reload") as fault:
        op = srvd.order("reload")
        srvd.wait_operation(op, "load")
        fault.strikes()
        _stand_still(srvd, 4)
        fault.repaired(lambda: srvd.operation(op)["state"] != "running")
    assert fault.lost() == []
    assert srvd.operation(op)["state"] == "done", srvd.operation(op)["error"]


def test_what_is_stopped_at_a_terminal_serves_on_and_goes_on(srvd: Srvd) -> None:
    """^Z goes to the foreground's process group: the daemon and its zygotes. Workers are in sessions of their own."""
    before = srvd.names()
    group = [*srvd.zygotes(), psutil.Process(srvd.pid)]
    with under_load(srvd, "^Z, and fg after 4 s") as fault:
        for process in group:
            process.suspend()  # not SIGTSTP: a group that no shell leads ignores it
        wait_for(lambda: all(_is_stopped(process.pid) for process in group))
        fault.load.more(8)
        assert stays(lambda: _is_stopped(srvd.pid), 4.0, every=0.1)
        for process in reversed(group):
            process.resume()
        fault.load.more(8)
    assert fault.lost() == []
    assert srvd.names() == before
    assert srvd.deaths() == []
