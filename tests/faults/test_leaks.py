"""What many faults leave behind: no descriptor in any role, no process, and nothing for a stranger with an old pid."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from srvd.errors import LoadFailed
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.fault import under_load
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system


def _fds(pid: int) -> list[str]:
    """What a process has open, without the numbers that differ each time."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(re.sub(r"\d+", "N", os.readlink(f"/proc/{pid}/fd/{fd}")))
        except FileNotFoundError:  # closed while they were listed
            continue
    return sorted(found)


def test_a_daemon_and_its_zygote_have_the_same_open_after_many_faults(starter: Starter) -> None:
    srvd = starter(
        config=toml('workers = 3\nbake = 0\nrollback_window = 0\nrequest_timeout = "1s"\ndrain_timeout = "1s"')
    )
    srvd.status()  # it keeps a file of each worker open from now on
    (zygote,) = srvd.zygotes()
    wait_for(lambda: len(srvd.names()) == 3)
    daemon, mother = _fds(srvd.pid), _fds(zygote.pid)
    with ThreadPoolExecutor() as pool, under_load(srvd, "six rounds of dead workers and broken reloads") as fault:
        for round_ in range(6):
            hung = pool.submit(srvd.get, "/hang") if round_ % 3 == 0 else None
            number = (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)[round_ % 3]
            for worker in srvd.serving():
                os.kill(worker["pid"], number)
            srvd.call("resume")
            srvd.wait_serving(3)
            srvd.deploy(apps.BROKEN["calls os._exit" if round_ % 2 else "raises at import"])
            with pytest.raises(LoadFailed):
                srvd.call("reload")
            if hung is not None:
                hung.exception(30)
        fault.strikes()
        fault.repaired(lambda: len(srvd.names()) == 3)
    deaths = srvd.deaths(pool="web", limit=100)
    assert fault.lost(*(death["worker"] for death in deaths)) == []
    assert len(deaths) >= 18
    assert "killed by signal 11" in fault.why("web", "--limit", "100")
    wait_for(lambda: len(srvd.family()) == 4)
    assert srvd.pool()["generation"] == 1
    wait_for(lambda: _fds(zygote.pid) == mother)
    _has_again(srvd, daemon)


def _has_again(srvd: Srvd, before: list[str]) -> None:
    """The daemon has open what it had, as soon as it has come to rest."""
    try:
        wait_for(lambda: (srvd.status(), _fds(srvd.pid) == before)[1], within=BOOT)
    except AssertionError:
        assert _fds(srvd.pid) == before
        raise


def test_zygotes_that_die_leave_nothing_open(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2\nbake = 0\nrollback_window = 0"))
    srvd.status()
    before = _fds(srvd.pid)
    with under_load(srvd, "the last of four zygotes killed one after the other") as fault:
        for generation in range(2, 6):
            fault.strikes()
            for zygote in srvd.zygotes():
                zygote.kill()
            wait_for(lambda generation=generation: srvd.pool()["generation"] == generation, within=BOOT)  # type: ignore[misc]
            wait_for(lambda: srvd.pool()["state"] == "ready" and len(srvd.family()) == 3, within=BOOT)
        fault.repaired(lambda: srvd.pool()["generation"] == 5)
    assert fault.lost() == []
    workers = [death for death in srvd.deaths() if death["cause"] != "zygote"]
    assert {(death["cause"], death["exit_code"]) for death in workers} == {("retired", 0)}
    _has_again(srvd, before)


@pytest.mark.parametrize("threads", [1, 4], ids=["one thread", "threads"])
def test_a_worker_has_the_same_open_after_clients_of_all_bad_kinds(starter: Starter, threads: int) -> None:
    """Who hangs up in the middle of everything: before, in and after a request, politely and by a reset. They are the
    load; a client that behaves is answered in between, and nothing is to be repaired.
    """
    raises = apps.good().replace("hang()\n    if", "raise RuntimeError\n    if", 1)
    srvd = starter(config=toml(f"workers = 1\nthreads = {threads}"), code=raises)
    (worker,) = srvd.serving()
    srvd.get()
    wait_for(lambda: srvd.call("workers")["workers"][0]["connections"] == 0)
    before = _fds(worker["pid"])
    large = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 2_000_000
    pieces = [
        b"",
        b"GET / HT",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        large,  # over a megabyte: it is in a file
        b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /sleep/0.05 HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
        b"\x16\x03\x01 nonsense\r\n\r\n",
    ]
    for number in range(8 * len(pieces)):
        with socket.create_connection(srvd.address(), timeout=BOOT) as client:
            client.sendall(pieces[number % len(pieces)])
            if number % 2:  # l_onoff, l_linger of socket(7): closing resets
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert srvd.get().startswith("one ")
    wait_for(lambda: srvd.call("workers")["workers"][0]["connections"] == 0, within=BOOT)
    wait_for(lambda: _fds(worker["pid"]) == before)
    assert srvd.names() == {worker["id"]}
    assert srvd.deaths() == []


# -- children of children -----------------------------------------------------------------------------------------

ORPHANS = apps.good().replace(
    'if path == "/exit":',
    """if path == "/orphans":
        for number in range(20):
            if os.fork() == 0:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(0.02 * number)
                os._exit(0)
    if path == "/exit":""",
)
"""GET /orphans leaves twenty zombies of the worker behind, and twenty that lose their parent and end later."""


def _zombies(srvd: Srvd) -> list[int]:
    """Of the whole family, but for what a worker has not waited for itself."""
    workers = {worker["pid"] for worker in srvd.serving()}
    found = []
    for one in srvd.family():
        try:
            if one.status() == psutil.STATUS_ZOMBIE and one.ppid() not in workers:
                found.append(one.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def test_zombies_of_a_dead_worker_and_orphans_are_reaped(starter: Starter) -> None:
    srvd = starter("--workers", "2", code=ORPHANS)
    with under_load(srvd, "a worker killed that leaves forty children") as fault:
        victim = fault.kills(worker=srvd.get("/orphans").split()[1])
        fault.replaced(victim, 2)
        wait_for(lambda: len(srvd.family()) == 3, within=BOOT)
        assert _zombies(srvd) == []
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim)


def _new_pid_namespace() -> bool:
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True)
    return done.returncode == 0


@pytest.mark.skipif(not _new_pid_namespace(), reason="no PID namespace can be made here")
def test_as_the_first_process_of_a_container_it_reaps_everybody_and_obeys_term(starter: Starter) -> None:
    srvd = starter.new("--workers", "2", code=ORPHANS)
    srvd.command = ["unshare", "--pid", "--fork", "--mount-proc", *srvd.command]
    srvd.start()
    assert srvd.status()["daemon"]["pid"] == 1
    (first,) = psutil.Process(srvd.pid).children()
    (zygote,) = first.children()
    with under_load(srvd, "a worker killed under a daemon that is process 1") as fault:
        victim = srvd.get("/orphans").split()[1]
        fault.strikes()
        next(worker for worker in zygote.children() if f"worker {victim}" in " ".join(worker.cmdline())).kill()
        fault.repaired(lambda: "web/1#3" in srvd.names() and len(srvd.names()) == 2)
        # With the worker that has forked them; before, only it may wait for its children.
        wait_for(lambda: len(first.children(recursive=True)) == 3, within=BOOT)
    assert fault.lost(victim) == []
    assert "killed by signal 9" in fault.why(victim)
    first.terminate()
    assert srvd.wait() == 0


# -- pids ---------------------------------------------------------------------------------------------------------

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def _somebody_with(pid: int) -> subprocess.Popen[bytes] | None:
    """A process that has this pid, if the kernel gives it (proc_sys_kernel(5), ns_last_pid); else None."""
    for _ in range(50):
        try:
            LAST_PID.write_text(str(pid - 1))
        except OSError:
            return None
        somebody = subprocess.Popen(["sleep", "600"])
        if somebody.pid == pid:
            return somebody
        somebody.kill()
        somebody.wait()
    return None


def test_a_stranger_with_the_pid_of_a_dead_worker_is_left_alone(starter: Starter) -> None:
    """Whatever is done afterwards to the workers of that time: nobody signals by a number."""
    srvd = starter(config=toml('workers = 2\nrequest_timeout = "1s"\ndrain_timeout = "1s"'))
    with contextlib.ExitStack() as stack:
        fault = stack.enter_context(under_load(srvd, "a worker killed without a zygote, beside a stranger"))
        doomed = fault.dooms()
        os.kill(doomed["pid"], signal.SIGKILL)
        fault.replaced(doomed["id"], 2)
        wait_for(lambda: not os.path.exists(f"/proc/{doomed['pid']}"))
        stranger = _somebody_with(doomed["pid"])
        if stranger is None:
            pytest.skip("no process can be given a chosen pid here")
        stack.callback(stranger.wait)
        stack.callback(stranger.kill)
        for method in ("recycle", "reload"):
            assert srvd.call(method)["operation"]["state"] == "done"
        second = fault.dooms()
        for zygote in srvd.zygotes():
            zygote.kill()
        os.kill(second["pid"], signal.SIGKILL)
        fault.strikes()
        fault.repaired(lambda: srvd.pool()["state"] == "ready" and second["id"] not in srvd.names())
        assert fault.lost() == []
        assert "killed by signal 9" in fault.why(doomed["id"])
        fault.load.over.set()
        assert srvd.ctl("stop", "--now").returncode == 0
        assert srvd.wait() == 0
        assert stays(lambda: stranger.poll() is None, 0.5)
