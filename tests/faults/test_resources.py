"""The system is short of memory, processes or descriptors: what is refused is tried again, the rest serves on."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Map, Srvd, toml
from tests.support.fault import control_group, no_more_files, under_load
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

HUNGRY = apps.good().replace(
    "def hang():", "def hang():\n    return feed()\ndef feed():\n    x = b'x' * (1 << 31)\ndef _():"
)
"""GET /hang takes 2 GiB."""

# -- memory -------------------------------------------------------------------------------------------------------


def test_a_worker_that_the_kernel_ends_for_want_of_memory_is_named_so(starter: Starter) -> None:
    with control_group("memory.max", 300 << 20, "memory.limit_in_bytes") as group:
        srvd = starter.new(config=toml("workers = 2"), code=HUNGRY)
        srvd.command = ["/bin/sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$0" "$@"', *srvd.command]
        srvd.start()
        # Whom the kernel takes if none is larger than the others: any worker before the zygote, and the daemon last.
        family = [srvd.pid, srvd.zygotes()[0].pid, srvd.serving()[0]["pid"]]
        scores = [int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in family]
        assert scores == sorted(set(scores))
        with under_load(srvd, "out of memory in a control group") as fault:
            fault.strikes()
            with pytest.raises(OSError, match=r"without response|reset"):
                srvd.get("/hang")
            (death,) = wait_for(srvd.deaths)
            fault.replaced(death["worker"], 2)
        assert fault.lost(death["worker"]) == []
        assert (death["cause"], death["signal"], death["out_of_memory"]) == ("out_of_memory", 9, True)
        why = fault.why()
        assert "ran out of memory; killed by signal 9" in why
        assert "GET /hang" in why
        srvd.stop()


def test_an_application_that_meets_its_limit_of_memory_gets_an_error_and_the_worker_serves_on(starter: Starter) -> None:
    """RLIMIT_AS, set by the application itself: MemoryError, a 500 for that request alone."""
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({1 << 30}, {1 << 30}))\n"
    srvd = starter(config=toml("workers = 2"), code=limit + HUNGRY)
    with under_load(srvd, "RLIMIT_AS, until the next answer") as fault:
        connection = srvd.connect()
        connection.request("GET", "/hang")
        assert connection.getresponse().status == 500
        connection.close()
        fault.strikes()
        fault.repaired(lambda: srvd.get().startswith("one "))
        assert srvd.names() == {"web/1#1", "web/1#2"}
    assert fault.lost() == []
    srvd.wait_logged("MemoryError")
    assert "no worker has died" in fault.why()


# -- processes ----------------------------------------------------------------------------------------------------


FEW_PROCESSES = "import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (8, 8))\n" + apps.good()
"""The zygote and its workers belong to a user who may have eight processes (the limit is none for root)."""

NOBODY_ELSE = 60_000 + os.getpid() % 5_000
"""A user who has no other processes."""


@contextlib.contextmanager
def _other_processes() -> Iterator[None]:
    """The user has as many as he may, and more."""
    with ExitStack() as stack:
        for _ in range(8):
            other = stack.enter_context(subprocess.Popen(["sleep", "600"], user=NOBODY_ELSE))
            stack.callback(other.kill)
        yield


def _with_a_user(starter: Starter, workers: int) -> Srvd:
    pool = f'workers = {workers}\nuser = "{NOBODY_ELSE}"\ngroup = "{NOBODY_ELSE}"'
    srvd = starter.new(config=toml(pool), code=FEW_PROCESSES)
    srvd.let_others_in()
    return srvd.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a daemon whose pool has another user")
def test_forks_that_are_refused_are_tried_again_and_the_others_serve(starter: Starter) -> None:
    """EAGAIN of fork(2), RLIMIT_NPROC: one missing worker is the whole damage, and it comes as soon as it can."""
    srvd = _with_a_user(starter, 3)
    with under_load(srvd, "fork refused with EAGAIN, after there is room again") as fault:
        with _other_processes():
            victim = fault.kills()
            wait_for(lambda: srvd.logged().count("was not forked: fork: Resource temporarily unavailable") >= 3)
            assert srvd.pool()["state"] == "degraded"
            assert "workers cannot be forked" in srvd.ctl("status").stdout
            assert srvd.pool()["generation"] == 1
            fault.load.more()
        fault.strikes()
        fault.replaced(victim, 3, BOOT)
    assert fault.lost() == []
    assert srvd.pool()["state"] == "ready"
    assert "killed by signal 9" in fault.why(victim)
    assert len(srvd.deaths()) == 1  # a refused fork is no death


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a daemon whose pool has another user")
def test_an_order_that_needs_forks_which_are_refused_is_given_up_with_the_reason(starter: Starter) -> None:
    srvd = _with_a_user(starter, 2)
    with under_load(srvd, "scale while forks are refused") as fault:
        with _other_processes():
            scale = srvd.ctl("scale", "4")
            assert scale.returncode == 1
            assert "Resource temporarily unavailable" in scale.stderr
            assert srvd.pool()["desired"] == 2
            assert len(srvd.names()) == 2
        fault.strikes()
        assert srvd.ctl("scale", "4").returncode == 0
        fault.repaired(lambda: len(srvd.names()) == 4)
    assert fault.lost() == []
    assert "no worker has died" in fault.why()


def test_a_daemon_that_may_not_fork_keeps_all_it_has_and_loads_a_lost_zygote_as_soon_as_it_may(srvd: Srvd) -> None:
    """EAGAIN where the daemon starts a zygote: a reload is given up with the reason, a repair is tried again."""
    with under_load(srvd, "a zygote killed while the daemon cannot fork, after it can") as fault:
        before = srvd.names()
        with control_group("pids.max", 1) as group:
            (group / "cgroup.procs").write_text(str(srvd.pid))  # and nobody else: its children may fork
            reload = srvd.ctl("reload")
            assert reload.returncode == 1
            assert "Resource temporarily unavailable" in reload.stderr
            (zygote,) = srvd.zygotes()
            zygote.kill()
            wait_for(lambda: [op for op in _repairs(srvd) if op["state"] == "failed"])
            assert "Resource temporarily unavailable" in srvd.ctl("status").stdout
            fault.load.more()
            assert srvd.names() == before
            fault.strikes()
        fault.repaired(lambda: srvd.pool()["state"] == "ready" and srvd.names().isdisjoint(before))
    assert fault.lost() == []
    assert _repairs(srvd)[0]["state"] == "done"
    assert all("was told to leave (replaced); exited with code 0" in fault.why(worker) for worker in before)


def _repairs(srvd: Srvd) -> list[Map]:
    return [op for op in srvd.call("history")["operations"] if op["kind"] == "repair"]


# -- descriptors --------------------------------------------------------------------------------------------------


def test_a_daemon_out_of_descriptors_goes_on_and_repairs_when_there_are_some(srvd: Srvd) -> None:
    """EMFILE: it can make no link for a new worker, read no configuration, accept no srvctl. Then it can again."""
    with under_load(srvd, "EMFILE in the daemon, until there are descriptors") as fault:
        doomed = fault.dooms()
        victim = doomed["id"]
        with srvd.client() as client, no_more_files(srvd.pid):
            os.kill(doomed["pid"], signal.SIGKILL)
            srvd.wait_logged("was not forked")
            assert client.call("status")["pools"][0]["serving"] == 1
            srvd.signal(signal.SIGHUP)
            srvd.wait_logged("operation 2: reload: failed")
            fault.load.more()
            fault.strikes()
        fault.replaced(victim, 2, BOOT)
    assert fault.lost() == []
    srvd.wait_logged("Too many open files")
    assert "killed by signal 9" in fault.why(victim)
    assert "a bug in srvd" not in srvd.logged()
    assert srvd.call("reload")["operation"]["state"] == "done"


def test_a_worker_out_of_descriptors_leaves_new_clients_to_others(srvd: Srvd) -> None:
    """EMFILE of accept(2): who has a connection keeps it, nothing spins, and when there are descriptors it accepts."""
    with under_load(srvd, "EMFILE in a worker, until there are descriptors") as fault:
        poor = srvd.serving()[0]
        process = psutil.Process(poor["pid"])
        with no_more_files(poor["pid"]):
            before = process.cpu_times().user + process.cpu_times().system
            seen = {srvd.get().split()[1] for _ in range(20)}
            assert seen == {srvd.serving()[1]["id"]}
            assert process.cpu_times().user + process.cpu_times().system - before < 1.0
            fault.strikes()
        fault.repaired(lambda: srvd.get().split()[1] == poor["id"])
    assert fault.lost() == []
    srvd.wait_logged(f"{poor['id']} | ")
    srvd.wait_logged("accept a connection: Too many open files")
    assert "no worker has died" in fault.why()


def test_all_workers_out_of_descriptors_keep_clients_waiting_and_lose_none(starter: Starter) -> None:
    """Who has a connection is served on; whoever is new waits in the backlog until there are descriptors."""
    srvd = starter(config=toml("workers = 1"))
    (worker,) = srvd.serving()
    with under_load(srvd, "EMFILE in the only worker, until there are descriptors") as fault, ExitStack() as clients:
        with no_more_files(worker["pid"]):
            waiting = [clients.enter_context(socket.create_connection(srvd.address(), timeout=30)) for _ in range(5)]
            for client in waiting:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            srvd.wait_logged("accept a connection: Too many open files")
            fault.load.more()
            fault.strikes()
        answers = [client.recv(65536) for client in waiting]
        fault.repaired(lambda: all(answer.startswith(b"HTTP/1.1 200 OK") for answer in answers))
    assert fault.lost() == []
    assert srvd.names() == {worker["id"]}
    assert "no worker has died" in fault.why()
