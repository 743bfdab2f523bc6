"""The signals that init scripts know, and what each of them does."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_term_and_int_stop_it_when_requests_are_answered(srvd: Srvd, number: int) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/0.5")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        srvd.signal(number)
        assert srvd.wait() == 0
        assert slow.result().startswith("one ")
    srvd.wait_logged(f"asked by signal {signal.Signals(number).name}")
    # Somebody sits at the keyboard, and wonders why it takes so long.
    assert ("^C once more cuts them off" in srvd.logged()) == (number == signal.SIGINT)


def test_quit_does_not_wait_for_requests(srvd: Srvd) -> None:
    with ThreadPoolExecutor() as pool:
        hung = pool.submit(srvd.get, "/hang")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        began = time.monotonic()
        srvd.signal(signal.SIGQUIT)
        assert srvd.wait() == 0
        assert time.monotonic() - began < 5
        assert hung.exception() is not None


def test_a_second_term_hurries(srvd: Srvd) -> None:
    with ThreadPoolExecutor() as pool:
        hung = pool.submit(srvd.get, "/hang")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        srvd.signal(signal.SIGTERM)
        srvd.wait_logged("asked by signal SIGTERM")
        assert srvd.process is not None
        assert srvd.process.poll() is None
        began = time.monotonic()
        srvd.signal(signal.SIGTERM)
        assert srvd.wait() == 0
        assert time.monotonic() - began < 5
        assert hung.exception() is not None
    srvd.wait_logged("stopping in a hurry")


def test_a_stop_kills_who_does_not_finish_within_drain_timeout(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\ndrain_timeout = "1s"'))
    with ThreadPoolExecutor() as pool:
        hung = pool.submit(srvd.get, "/hang")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        began = time.monotonic()
        srvd.signal(signal.SIGTERM)
        assert srvd.wait() == 0
        assert 1 <= time.monotonic() - began < 10
        assert hung.exception() is not None
    srvd.wait_logged("in hang")  # where it was


def test_hup_reloads(srvd: Srvd) -> None:
    srvd.good("two")
    srvd.signal(signal.SIGHUP)
    wait_for(lambda: srvd.pool()["generation"] == 2)
    wait_for(lambda: srvd.call("history")["operations"][0]["kind"] == "reload")
    done = srvd.call("history")["operations"][0]
    assert (done["state"], done["actor"]["name"]) == ("done", "signal SIGHUP")
    assert srvd.get().startswith("two ")


def test_hup_with_broken_code_changes_nothing(srvd: Srvd) -> None:
    before = srvd.names()
    srvd.deploy(apps.BROKEN["raises at import"])
    srvd.signal(signal.SIGHUP)
    wait_for(lambda: srvd.call("history")["operations"][0]["state"] == "failed")
    assert srvd.names() == before
    srvd.wait_logged("the deploy is broken")


def test_ttin_and_ttou_scale(srvd: Srvd) -> None:
    srvd.signal(signal.SIGTTIN)
    srvd.wait_serving(3)
    srvd.signal(signal.SIGTTIN)
    srvd.wait_serving(4)
    srvd.signal(signal.SIGTTOU)
    srvd.wait_serving(3)
    assert srvd.pool()["override"] == 3


def test_ttou_goes_no_lower_than_nobody(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    srvd.signal(signal.SIGTTOU)
    srvd.wait_serving(0)
    srvd.signal(signal.SIGTTOU)
    srvd.wait_logged("SIGTTOU: pool web cannot have -1 workers")
    srvd.signal(signal.SIGTTIN)
    srvd.wait_serving(1)
    assert srvd.get().startswith("one ")


def test_usr1_opens_the_log_anew(starter: Starter) -> None:
    srvd = starter("--log-file", "srvd.log")
    log, moved = srvd.folder / "srvd.log", srvd.folder / "srvd.log.1"
    log.rename(moved)
    srvd.kill_worker("web/1#1")
    wait_for(lambda: "killed by signal 9" in moved.read_text())
    srvd.signal(signal.SIGUSR1)
    wait_for(log.exists)
    srvd.wait_serving(2)
    victim = srvd.kill_worker("web/1#2")
    wait_for(lambda: f"{victim} died" in log.read_text())
    assert f"{victim} died" not in moved.read_text()


def test_a_log_that_has_become_a_pipe_nobody_reads_holds_up_nobody(starter: Starter) -> None:
    srvd = starter("--workers", "1", "--log-file", "srvd.log")
    log = srvd.folder / "srvd.log"
    log.rename(srvd.folder / "srvd.log.1")
    os.mkfifo(log)
    refused = srvd.ctl("reopen", timeout=10)
    assert refused.returncode == 10
    assert "open the log" in refused.stderr
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    try:
        assert srvd.ctl("reopen", timeout=10).returncode == 0
        with srvd.client() as client:
            for _ in range(60):  # of some 200 bytes in the log each: more than the pipe holds
                client.call("scale", {"size": 1})
    finally:
        os.close(reader)


def test_usr1_without_a_log_file_is_harmless(srvd: Srvd) -> None:
    srvd.signal(signal.SIGUSR1)
    srvd.wait_logged("SIGUSR1")
    assert srvd.get().startswith("one ")


def test_a_worker_that_gets_term_from_outside_finishes_and_is_replaced(srvd: Srvd) -> None:
    """`kill PID` of a worker, the habit of a lifetime: its request is answered, and another one takes its place."""
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/0.5")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        victim = next(worker for worker in srvd.serving() if worker["busy"])
        os.kill(victim["pid"], signal.SIGTERM)
        assert slow.result().startswith(f"one {victim['id']} ")
    srvd.wait_serving(2, without=victim["id"])


def test_a_child_that_ended_before_the_daemon_listened_is_reaped(starter: Starter) -> None:
    """Of the shell that became the daemon, say."""
    srvd = starter.new()
    srvd.command = ["/bin/sh", "-c", 'true & exec "$0" "$@"', *srvd.command]
    srvd.start()
    wait_for(lambda: not [one for one in srvd.family() if one.status() == psutil.STATUS_ZOMBIE])
