"""Requests that never end, of every kind, under every kind of worker: noticed by their age, replaced, ended.

There is one kind of worker so far, with one thread or with several. The others come with their tests.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, ask, toml
from tests.support.fault import under_load
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

WAYS = {
    "a loop": "while True: pass",
    "a C call that lets the interpreter go": "time.sleep(3600)",
    "a C call that holds the interpreter": "sum(range(1 << 60))",
    "a lock": "LOCK.acquire()",
    "a loop that catches everything": """
        while True:
            try:
                time.sleep(3600)
            except BaseException:
                pass""",
}


def _stuck(way: str) -> str:
    before = "import ctypes, threading\nLOCK = threading.Lock()\nLOCK.acquire()\n"
    return apps.good("one", before).replace("def hang():\n    time.sleep(3600)", f"def hang():\n    {WAYS[way]}")


KINDS = pytest.mark.parametrize("threads", [1, 4], ids=["one thread", "threads"])
LIMITS = 'workers = 2\nrequest_timeout = "1s"\ndrain_timeout = "1s"\nthreads = '


@KINDS
@pytest.mark.parametrize("way", WAYS)
def test_a_request_that_never_ends_costs_its_own_worker_and_nobody_else(
    starter: Starter, way: str, threads: int
) -> None:
    srvd = starter(config=toml(f"{LIMITS}{threads}"), code=_stuck(way))
    with ThreadPoolExecutor() as pool, under_load(srvd, f"{way}, threads = {threads} (request_timeout 1 s)") as fault:
        fault.strikes()
        hung = pool.submit(srvd.get, "/hang")
        victim = wait_for(lambda: _who_hangs(srvd))
        fault.replaced(victim, 2)
        (death,) = wait_for(srvd.deaths)
        assert hung.exception(30) is not None
    assert fault.lost(victim) == []
    if threads > 1 and way != "a C call that holds the interpreter":  # its other threads go on: that request is all
        assert fault.lost() == []
    assert (death["worker"], death["cause"], death["request"]) == (victim, "request_timeout", "GET /hang")
    why = fault.why(victim)
    assert "was stuck in a request" in why
    assert "GET /hang" in why
    assert "in hang" in why  # its stacks
    assert srvd.pool()["restarts"] == 1
    log = srvd.logged()
    # The replacement was there first.
    assert (
        log.index(f"{victim} has given nothing to GET /hang")
        < log.index("worker web/1#3 ready")
        < log.index(f"{victim} left")
    )


def _who_hangs(srvd: Srvd) -> str:
    workers = srvd.call("workers")["workers"]
    return next((str(one["id"]) for one in workers if one["request"] == "GET /hang"), "")


@KINDS
def test_all_workers_stuck_at_once_are_replaced_one_by_one_and_who_waits_is_answered(
    starter: Starter, threads: int
) -> None:
    """Nobody accepts, or nobody has a thread: clients wait in the backlog until replacements serve. These clients are
    the load here; any other load would stand still in the stuck workers, and go with them.
    """
    limits = LIMITS.replace('request_timeout = "1s"', 'request_timeout = "3s"')
    limits = limits if threads == 1 else limits.replace("workers = 2", "workers = 1")
    srvd = starter(config=toml(f"{limits}{threads}"), code=_stuck("a lock"))
    workers = srvd.names()
    with ThreadPoolExecutor(16) as pool:
        hung = []
        for number in range(len(workers) * threads):
            hung.append(pool.submit(srvd.get, "/hang"))
            wait_for(lambda busy=number + 1: _busy(srvd) == busy)  # type: ignore[misc]
        if threads > 1:  # for a moment, one whose threads are all stuck still accepts: what it holds goes with it
            wait_for(lambda: srvd.names() - workers)
        began = time.monotonic()
        late = [pool.submit(srvd.get) for _ in range(4)]
        assert all(answer.result(30).split()[1] not in workers for answer in late)
        print(f"all workers stuck, threads = {threads}: answers after {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure to read
        assert all(request.exception(30) is not None for request in hung)
    wait_for(lambda: len(srvd.deaths()) == len(workers))
    assert {death["cause"] for death in srvd.deaths()} == {"request_timeout"}
    wait_for(lambda: len(srvd.names() - workers) == len(workers))
    for worker in workers:
        why = srvd.ctl("why", worker).stdout
        assert "was stuck in a request" in why
        assert "in hang" in why
        assert threads == 1 or f"{threads} threads (" in why  # each of its threads, told once


def _busy(srvd: Srvd) -> int:
    return sum(int(one["busy"]) for one in srvd.call("workers")["workers"])


def test_a_worker_whose_threads_are_all_stuck_takes_no_more_clients(starter: Starter) -> None:
    """The other one is free. A client that came to the stuck one would wait for request_timeout, a minute."""
    srvd = starter(config=toml("workers = 2\nthreads = 2"), code=_stuck("a lock"))
    with ExitStack() as opened:
        stuck, free = _two_on_one_worker(srvd, opened)
        for connection in stuck:
            connection.request("GET", "/hang")
        wait_for(lambda: _busy(srvd) == 2)
        assert stays(lambda: _busy(srvd) == 2, 1.0, every=0.1)  # both are in their calls for a while
        for _ in range(20):
            assert srvd.get().split()[1] == free
        for pid in [one["pid"] for one in srvd.serving()]:  # nobody waits for a minute
            os.kill(pid, signal.SIGKILL)


def _two_on_one_worker(srvd: Srvd, opened: ExitStack) -> tuple[list[HTTPConnection], str]:
    """Two connections that one worker has, and the name of the other one."""
    held: dict[str, list[HTTPConnection]] = {name: [] for name in srvd.names()}
    while all(len(some) < 2 for some in held.values()):
        connection = opened.enter_context(closing(srvd.connect(timeout=5)))
        held[ask(connection).split()[1]].append(connection)
    (free,) = (name for name, some in held.items() if len(some) < 2)
    return next(some for some in held.values() if len(some) == 2), free


def test_the_only_worker_takes_those_who_waited_as_soon_as_a_thread_is_free(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1\nthreads = 2"))
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(srvd.get, "/until/over") for _ in range(2)]
        wait_for(lambda: _busy(srvd) == 2)
        assert stays(lambda: _busy(srvd) == 2, 1.0, every=0.1)
        late = [pool.submit(srvd.get) for _ in range(6)]
        assert stays(lambda: srvd.call("workers")["workers"][0]["connections"] == 2, 0.2)
        (srvd.folder / "over").touch()
        assert all(answer.result(30).startswith("one ") for answer in [*slow, *late])


HOLDS = "import ctypes, threading\ndef hold():\n    ctypes.PyDLL(None).sleep(3600)\n" + apps.good().replace(
    "hang()\n    if", "threading.Thread(target=hold, daemon=True).start()\n    if", 1
)
"""GET /hang begins a thread that keeps the interpreter to itself, and is answered or not, as it happens."""


LATER = HOLDS.replace("def hold():\n", "import time\ndef hold():\n    time.sleep(0.5)\n")
"""GET /hang is answered, and the thread does so half a second later."""

PAUSES = LATER.replace("None).sleep(3600)", "None).sleep(6)")
"""The same for six seconds: as the collector in a large heap, or an extension that works without letting go."""


@KINDS
def test_the_first_client_of_a_worker_whose_interpreter_is_held_is_answered_by_its_replacement(
    starter: Starter, threads: int
) -> None:
    """In no request at all, so that nothing else tells: the client comes, and nobody takes it."""
    srvd = starter(config=toml(f"workers = 1\nthreads = {threads}"), code=LATER)
    assert srvd.get("/hang") == f"one web/1#1 {srvd.serving()[0]['pid']}"
    assert stays(lambda: not srvd.deaths(), 1.0, every=0.1)  # by then it is held
    began = time.monotonic()
    assert srvd.get().startswith("one web/1#2 ")
    print(f"the GIL is held: answered after {1e3 * (time.monotonic() - began):.0f} ms")  # noqa: T201
    (death,) = wait_for(srvd.deaths, within=40)
    assert (death["worker"], death["cause"]) == ("web/1#1", "silent")
    assert "in hold" in srvd.ctl("why").stdout


@KINDS
def test_a_worker_that_does_not_get_on_for_some_seconds_loses_nothing(starter: Starter, threads: int) -> None:
    """If that begins outside of a request, it is suspected after four seconds, and replaced. It is not killed all the
    same, and answers what it had when it goes on.
    """
    srvd = starter(config=toml(f"workers = 1\nthreads = {threads}"), code=PAUSES)
    with ThreadPoolExecutor() as pool, under_load(srvd, f"the GIL is held for 6 s, threads = {threads}") as fault:
        fault.strikes()
        asked = pool.submit(srvd.get, "/hang")
        with closing(socket.create_connection(srvd.address())):  # one client more, who finds nobody
            assert asked.exception(30) is None
            began = time.monotonic()
            wait_for(lambda: fault.load.gap > 5, within=30)  # it is over, and was what it should be
        print(f"answered again {time.monotonic() - began:.1f} s later")  # noqa: T201
    assert fault.lost() == []
    wait_for(lambda: srvd.pool()["draining"] == 0)
    assert all((death["exit_code"], death["cause"]) == (0, "silent") for death in srvd.deaths())


@KINDS
def test_a_thread_outside_of_any_request_that_keeps_the_interpreter_is_found_while_clients_wait(
    starter: Starter, threads: int
) -> None:
    """No request is there to be overdue. The worker does not answer the daemon, either: that tells."""
    srvd = starter(config=toml(f'workers = 2\nrequest_timeout = "2s"\nthreads = {threads}'), code=HOLDS)
    with ThreadPoolExecutor() as pool, under_load(srvd, f"a thread that holds the GIL, threads = {threads}") as fault:
        fault.strikes()
        asked = pool.submit(srvd.get, "/hang")
        wait_for(lambda: len(srvd.deaths()) == 1, within=40)
        (death,) = srvd.deaths()
        fault.replaced(death["worker"], 2)
        asked.exception(30)
    assert fault.lost(death["worker"]) == []
    assert death["cause"] in ("silent", "request_timeout")  # it may have struck before the answer was out
    assert "in hold" in fault.why(death["worker"])
