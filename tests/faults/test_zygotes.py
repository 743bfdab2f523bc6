"""Zygotes that die or stand still under load. Their workers serve on; what is claimed is when the next one forks."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.fault import no_more_files, under_load
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_zygote_killed_loses_no_request_and_another_one_forks(srvd: Srvd, number: int) -> None:
    with under_load(srvd, f"{signal.Signals(number).name} of the zygote") as fault:
        (zygote,) = srvd.zygotes()
        before = srvd.names()
        fault.strikes()
        zygote.send_signal(number)
        fault.repaired(lambda: srvd.pool()["generation"] == 2 and srvd.pool()["state"] == "ready")
        wait_for(lambda: len(srvd.family()) == 3)
    assert fault.lost() == []
    srvd.wait_logged(f"the zygote of web@1 died (signal {int(number)}); its workers serve on, it is loaded anew")
    repair = next(op for op in srvd.call("history")["operations"] if op["kind"] == "repair")
    assert repair["state"] == "done"
    assert all("was told to leave (replaced); exited with code 0" in fault.why(worker) for worker in before)


def test_a_stopped_zygote_is_found_when_it_is_needed_and_nobody_notices(starter: Starter) -> None:
    """SIGSTOP: it lives, and forks nobody. The worker that is missing is there again with its successor."""
    srvd = starter(config=toml('workers = 3\nboot_timeout = "2s"'))
    with under_load(srvd, "SIGSTOP of the zygote, and a worker killed (boot_timeout 2 s)") as fault:
        (zygote,) = srvd.zygotes()
        zygote.suspend()
        victim = fault.kills()
        fault.replaced(victim, 3, BOOT)
        wait_for(lambda: srvd.pool()["generation"] == 2 and srvd.pool()["state"] == "ready")
        wait_for(lambda: not zygote.is_running())
    assert fault.lost() == []
    srvd.wait_logged("the zygote of web@1 does not fork; killing it")
    # Who was to tell how the worker ended was stopped, too; that it ended the kernel has told.
    assert re.search(rf"{victim} \(pid \d+\): died by itself", fault.why(victim))


def test_a_worker_killed_with_its_zygote_comes_back_with_the_next_one(starter: Starter) -> None:
    """There is nobody to fork it until the application is loaded anew."""
    srvd = starter(config=toml("workers = 3"), code=apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1)))
    (srvd.folder / "slow").touch()
    with under_load(srvd, "SIGKILL of the zygote, and of a worker while another one loads (for 1 s)") as fault:
        (zygote,) = srvd.zygotes()
        zygote.kill()
        srvd.wait_logged("the zygote of web@1 died (signal 9)")
        victim = fault.kills()
        fault.repaired(lambda: srvd.pool()["generation"] == 2 and srvd.pool()["state"] == "ready")
        assert len(srvd.names()) == 3
    assert fault.lost() == []
    assert "died by itself" in fault.why(victim)


def test_a_zygote_without_descriptors_refuses_to_fork_and_is_asked_again(starter: Starter) -> None:
    """EMFILE where the new worker's descriptors arrive. One worker is missing meanwhile; nobody else is."""
    srvd = starter(config=toml("workers = 3"))
    with under_load(srvd, "EMFILE in the zygote, after there are descriptors") as fault:
        (zygote,) = srvd.zygotes()
        with no_more_files(zygote.pid):
            victim = fault.kills()
            srvd.wait_logged("was not forked")
            assert len(srvd.names()) == 2
            fault.load.more()
            fault.strikes()
        fault.replaced(victim, 3, BOOT)
    assert fault.lost() == []
    assert srvd.zygotes() == [zygote]
    assert "killed by signal 9" in fault.why(victim)
    assert len(srvd.deaths()) == 1  # a refused fork is no death


def test_a_zygote_stopped_while_it_loads_fails_the_reload_and_nothing_else(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nboot_timeout = "4s"'))
    held = srvd.folder / "held"
    held.touch()
    srvd.good("two", "import os, time\nwhile os.path.exists('held'): time.sleep(0.02)\n")
    with under_load(srvd, "SIGSTOP of a zygote that loads (boot_timeout 4 s)") as fault:
        before = srvd.names()
        op = srvd.order("reload")
        srvd.wait_operation(op, "load")
        loading = wait_for(lambda: [one for one in srvd.zygotes() if "web@2" in " ".join(one.cmdline())])[0]
        fault.strikes()
        loading.suspend()
        held.unlink()
        fault.repaired(lambda: srvd.operation(op)["state"] == "failed")
        assert srvd.names() == before
    assert fault.lost() == []
    assert "no worker has died" in fault.why()
    assert "was not loaded within 4 s" in srvd.operation(op)["error"]["message"]
    wait_for(lambda: len(srvd.zygotes()) == 1)


def test_a_zygote_killed_in_a_reload_fails_it_and_the_old_generation_serves(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    srvd.good("two", apps.SLOW.format(seconds=1000))
    with under_load(srvd, "SIGKILL of a zygote that loads") as fault:
        before = srvd.names()
        op = srvd.order("reload")
        srvd.wait_operation(op, "load")
        loading = wait_for(lambda: [one for one in srvd.zygotes() if "web@2" in " ".join(one.cmdline())])[0]
        fault.strikes()
        loading.kill()
        fault.repaired(lambda: srvd.operation(op)["state"] == "failed")
        assert srvd.names() == before
    assert fault.lost() == []
    assert "no worker has died" in fault.why()
    assert "the process ended while it was loaded (signal 9)" in srvd.operation(op)["error"]["message"]


def test_a_worker_that_ends_while_its_zygote_is_stopped_is_no_zombie_for_long(starter: Starter) -> None:
    """Its parent cannot reap it; when that has been replaced, it is the daemon's child, and is reaped."""
    srvd = starter(config=toml('workers = 2\nboot_timeout = "1s"'))
    with under_load(srvd, "a worker killed while its zygote is stopped, until it is reaped") as fault:
        (zygote,) = srvd.zygotes()
        zygote.suspend()
        pids = {worker["id"]: worker["pid"] for worker in srvd.serving()}
        victim = fault.kills()
        fault.repaired(lambda: not os.path.exists(f"/proc/{pids[victim]}"))
        srvd.wait_serving(2, without=victim)
    assert fault.lost() == []
    assert "died by itself" in fault.why(victim)
