"""Claims about workers whose daemon and zygote are both gone: nobody can end them any more, and none stays for ever."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from srvd.linux.processes import deadman
from tests.conftest import Starter
from tests.support.adoption import adopted, die, die_with_zygote, pids
from tests.support.apps import HELD
from tests.support.daemon import BOOT, Srvd, is_alive, toml
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

APP = """
import ctypes, os, signal, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stuck":  # in C, with the interpreter's lock, in a call that no signal ends
        mutex = ctypes.create_string_buffer(256)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    if path == "/alarm":
        signal.signal(signal.SIGALRM, lambda *_: None)
    start_response("200 OK", [])
    return [f"{os.getpid()} {signal.getitimer(signal.ITIMER_REAL)[0]}".encode()]
"""


def hold(srvd: Srvd) -> Path:
    """As long as it is there, no next generation comes."""
    held = srvd.folder / "held"
    held.touch()
    return held


def left_of(srvd: Srvd, path: str = "/") -> float:
    """Seconds until the worker is ended; 0.0: it is not."""
    return float(srvd.get(path).split()[1])


def test_the_kernel_tells_when_the_last_holder_is_gone_and_only_then(tmp_path: Path) -> None:
    end, hold = os.pipe()
    other = os.dup(hold)
    pid = os.fork()
    if pid == 0:
        try:
            assert deadman.prepare()
            os.close(hold)
            os.close(other)
            deadman.own(end)
            (tmp_path / "ready").touch()
            while True:
                signal.pause()
                (tmp_path / str(round(signal.getitimer(signal.ITIMER_REAL)[0]))).touch()
        finally:
            os._exit(1)
    try:
        os.close(end)
        wait_for((tmp_path / "ready").exists)
        os.close(hold)
        assert stays(lambda: len(list(tmp_path.iterdir())) == 1, 0.2)
        os.close(other)
        wait_for(lambda: sorted(path.name for path in tmp_path.iterdir())[0] in ("63", "64"))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_as_long_as_daemon_or_zygote_live_a_worker_has_no_limit(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"), code=HELD + APP)
    assert left_of(srvd) == 0.0
    die(srvd)
    assert stays(lambda: left_of(srvd) == 0.0, 0.5)
    srvd.start()
    zygote = srvd.only_zygote()
    held = hold(srvd)
    zygote.kill()
    srvd.wait_logged("died")
    assert stays(lambda: left_of(srvd) == 0.0, 0.5)
    held.unlink()


@pytest.mark.parametrize("threads", [1, 4])
def test_who_has_lost_both_lives_as_long_as_its_loop_turns_and_without_limit_when_it_is_adopted(
    starter: Starter, threads: int
) -> None:
    srvd = starter(config=toml(f"workers = 1\nthreads = {threads}"), code=HELD + APP)
    assert left_of(srvd) == 0.0
    before = die_with_zygote(srvd)
    wait_for(lambda: deadman.SECONDS - 5 < left_of(srvd) <= deadman.SECONDS)
    held = hold(srvd)
    adopted(srvd)
    assert pids(srvd) == before
    wait_for(lambda: left_of(srvd) == 0.0)
    held.unlink()
    srvd.call("reload")


def test_an_upgrade_keeps_hold(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"), code=HELD + APP)
    opened = srvd.fds()
    for _ in range(2):
        assert srvd.ctl("upgrade").returncode == 0
    assert srvd.fds() <= opened + 1
    held = hold(srvd)
    next(one for one in srvd.family() if one.pid not in pids(srvd).values()).kill()
    srvd.wait_logged("died")
    assert stays(lambda: left_of(srvd) == 0.0, 0.5)
    held.unlink()


def test_where_the_c_library_cannot_be_called_nobody_is_harmed_by_the_signal(starter: Starter) -> None:
    """A Python may be built without ctypes. Its workers have no lifeline, and no handler that the signal would need."""
    poor = starter.folder / "poor"
    poor.mkdir()
    (poor / "ctypes.py").write_text("raise ImportError('there is none')\n")
    path = os.pathsep.join([str(poor), *filter(None, [os.environ.get("PYTHONPATH")])])
    srvd = starter(config=toml(f'workers = 1\nenv = {{ PYTHONPATH = "{path}" }}'))
    srvd.get()
    (only,) = die_with_zygote(srvd).values()
    assert stays(lambda: srvd.get().split()[1] == "web/1#1", 0.5)
    assert is_alive(psutil.Process(only))
    srvd.start()


@pytest.mark.long
@pytest.mark.parametrize("patience", [0, 600])
def test_who_is_stuck_in_c_and_has_lost_both_is_ended_and_others_live_on(starter: Starter, patience: int) -> None:
    """A worker that keeps the interpreter's lock notices nothing: the kernel has to."""
    srvd = starter(config=toml(f"workers = 2\norphan_timeout = {patience}\ndrain_timeout = 600"), code=HELD + APP)
    with socket.create_connection(srvd.address()) as client:
        client.sendall(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: [one for one in srvd.serving() if one["busy"]])
        (stuck,) = (one["pid"] for one in srvd.serving() if one["busy"])
        die_with_zygote(srvd)
        left = {one.pid: one for one in srvd.adopted}
        wait_for(lambda: not is_alive(left[stuck]), deadman.SECONDS + BOOT)
        others = [one for pid, one in left.items() if pid != stuck and is_alive(one)]
        assert len(others) == (1 if patience else 0)
    if patience:
        connection = http.client.HTTPConnection(*srvd.address(), timeout=BOOT)
        connection.request("GET", "/")
        assert connection.getresponse().read().split()[0] == str(others[0].pid).encode()
        connection.close()
    srvd.start()
