"""Workers that die or stand still under load: what that costs, how soon another one serves, and what `why` says."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException

import psutil
import pytest

from srvd.daemon.watch.liveness import LOOK, PATIENCE
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, ask, toml
from tests.support.fault import SOON, under_load
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

THREADS = pytest.mark.parametrize("threads", [1, 4], ids=["one thread", "threads"])

TOLD_BY_FAULTHANDLER: dict[int, str] = {signal.SIGABRT: "Aborted", signal.SIGBUS: "Bus error"}


@THREADS
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_worker_killed_by_a_signal_is_replaced_and_costs_its_own_requests(
    starter: Starter, threads: int, number: int
) -> None:
    srvd = starter(config=toml(f"workers = 2\nthreads = {threads}"))
    name = signal.Signals(number).name
    with under_load(srvd, f"{name} of a worker, threads = {threads}") as fault:
        victim = fault.kills(number)
        fault.replaced(victim, 2)
    assert fault.lost() == []
    (death,) = srvd.deaths(worker=victim)
    if death["signal"] != number:
        # faulthandler reads the stacks of threads that run on: its report of a fault may end in another one.
        assert death["signal"] == signal.SIGSEGV
        srvd.wait_logged(f"{victim} | Fatal Python error: {TOLD_BY_FAULTHANDLER[number]}")
    assert death["cause"] == "signal"
    assert f"died by itself; killed by signal {death['signal']}" in fault.why(victim)
    if number == signal.SIGSEGV:  # the interpreter's last words: where it was
        assert "Fatal Python error: Segmentation fault" in fault.why(victim)
        assert "Current thread" in death["stderr"]


def test_all_workers_killed_at_once_cost_their_own_requests_and_who_comes_waits(srvd: Srvd) -> None:
    """Nobody accepts until there is another one. Who is in the backlog then is answered."""
    with under_load(srvd, "SIGKILL of both workers") as fault:
        victims = {fault.kills(), fault.kills()}
        fault.repaired(lambda: len(names := srvd.names()) == 2 and not names & victims, SOON)
    assert fault.lost() == []
    assert len(victims) == 2
    assert all("killed by signal 9" in fault.why(victim) for victim in victims)


CRASHES = """
import ctypes
def crash():
    ctypes.string_at(0)
"""


def test_a_request_that_crashes_its_worker_is_named(starter: Starter) -> None:
    """An extension that reads a null pointer: the certificate says in which request, and where in the code."""
    code = CRASHES + apps.good().replace("hang()\n    if", "crash()\n    if")
    srvd = starter(config=toml("workers = 2"), code=code)
    with under_load(srvd, "a crash in a request") as fault:
        fault.strikes()
        with pytest.raises(OSError, match=r"without response|reset"):
            srvd.get("/hang")
        (death,) = wait_for(srvd.deaths)
        fault.replaced(death["worker"], 2)
    assert fault.lost(death["worker"]) == []
    assert (death["request"], death["signal"]) == ("GET /hang", signal.SIGSEGV)
    why = fault.why()
    assert "GET /hang" in why
    assert "in crash" in why


@THREADS
def test_a_killed_worker_leaves_the_lines_of_what_it_has_answered(starter: Starter, threads: int) -> None:
    """But for the request that each thread was in: its answer may be out, and its line not yet made."""
    log = starter.folder / "access"
    pool = f'workers = 1\nthreads = {threads}\naccess_log = "{log}"\naccess_log_format = "%(q)s"'
    srvd = starter(config=toml(pool))
    answered: list[str] = []
    over = threading.Event()

    def ask_on(client: int) -> None:
        connection = srvd.connect()
        for number in itertools.count():
            if over.is_set():
                break
            try:
                ask(connection, f"/?{client}-{number}")
            except (OSError, HTTPException):
                connection.close()
            else:
                answered.append(f"{client}-{number}")
        connection.close()

    with ThreadPoolExecutor(4) as clients:
        asking = [clients.submit(ask_on, client) for client in range(4)]
        for _ in range(3):
            so_far = len(answered)
            wait_for(lambda so_far=so_far: len(answered) > so_far + 500, within=30)  # type: ignore[misc]
            srvd.wait_serving(1, without=srvd.kill_worker())
        over.set()
        for one in asking:
            one.result(30)
    assert srvd.stop() == 0
    written = log.read_text().splitlines()
    assert len(written) == len(set(written))
    assert len(set(answered) - set(written)) <= 3 * threads


def test_a_worker_that_is_full_of_slow_clients_answers_and_stays(starter: Starter) -> None:
    """Nobody is accepted, nothing gets done, clients wait in the backlog: and yet nothing is wrong with it."""
    srvd = starter(config=toml("workers = 1\nmax_connections = 2"))
    with ExitStack() as clients:
        for number in range(4):
            client = clients.enter_context(socket.create_connection(srvd.address()))
            client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n" + b"x" * number)
        wait_for(lambda: srvd.call("workers")["workers"][0]["connections"] == 2)
        assert stays(lambda: srvd.names() == {"web/1#1"}, (PATIENCE + 2.5) * LOOK, every=0.1)
    assert srvd.get().startswith("one web/1#1 ")
    assert "clients have waited" not in srvd.logged()


CONNECT_AND_SIGNAL = """
import os, socket, sys
port, victim, processor, number = map(int, sys.argv[1:])
os.sched_setaffinity(0, {processor})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
    os.kill(victim, number)
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
    print(client.recv(65536).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may keep a processor from others")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_client_whose_worker_dies_before_it_accepts_is_accepted_by_another(starter: Starter, number: int) -> None:
    """The kernel wakes one worker for a client: the one that has not accepted for longest. Here it is killed or stopped
    before it gets the processor, on which the client has precedence. The daemon stands still, so that no new worker
    comes, and none is continued.
    """
    srvd = starter(config=toml("workers = 2"))
    last = srvd.get().split()[1]
    victim = psutil.Process(next(worker["pid"] for worker in srvd.serving() if worker["id"] != last))
    processor = min(os.sched_getaffinity(0))
    for thread in victim.threads():
        os.sched_setaffinity(thread.id, {processor})
    srvd.signal(signal.SIGSTOP)
    try:
        numbers = srvd.address()[1], victim.pid, processor, int(number)
        command = [sys.executable, "-c", CONNECT_AND_SIGNAL, *map(str, numbers)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    finally:
        srvd.signal(signal.SIGCONT)
    if "PermissionError" in answer.stderr:
        pytest.skip("the real-time scheduler is not for this root")
    assert answer.stdout.startswith("HTTP/1.1 200 OK"), answer.stderr


def test_a_daemon_looks_after_its_workers_only_while_clients_come(srvd: Srvd) -> None:
    with srvd.under_load(2):
        pass
    daemon = psutil.Process(srvd.pid)

    def rests() -> bool:
        before = daemon.num_ctx_switches().voluntary
        return stays(lambda: daemon.num_ctx_switches().voluntary == before, 2 * LOOK, every=0.1)

    wait_for(rests, within=30)
