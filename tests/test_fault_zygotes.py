"""Zygotes that die or stand still under load. Their workers serve on; what is claimed is when the next one forks."""

from __future__ import annotations

import os
import signal

import pytest

from tests import apps
from tests.conftest import Starter
from tests.daemon import Srvd, toml
from tests.fault import under_load
from tests.support import wait_for

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
    assert f"the zygote of web@1 died (signal {int(number)}); its workers serve on, it is loaded anew" in srvd.logged()
    repair = next(op for op in srvd.call("history")["operations"] if op["kind"] == "repair")
    assert repair["state"] == "done"
    assert all("was told to leave (replaced); exited with code 0" in fault.why(worker) for worker in before)


def test_a_stopped_zygote_is_found_when_it_is_needed_and_nobody_notices(starter: Starter) -> None:
    """SIGSTOP: it lives, and forks nobody. The worker that is missing is there again with its successor."""
    srvd = starter(config=toml('workers = 3\nboot_timeout = "2s"'))
    with under_load(srvd, "SIGSTOP of the zygote, and a worker killed (boot_timeout 2 s)") as fault:
        (zygote,) = srvd.zygotes()
        zygote.suspend()
        victim = srvd.serving()[0]
        fault.strikes()
        os.kill(victim["pid"], signal.SIGKILL)
        fault.replaced(victim["id"], 3)
        wait_for(lambda: srvd.pool()["generation"] == 2 and srvd.pool()["state"] == "ready")
        wait_for(lambda: not zygote.is_running())
    assert fault.lost(victim["id"]) == []
    assert "the zygote of web@1 does not fork; killing it" in srvd.logged()
    # Who was to tell how the worker ended was stopped, too; that it ended the kernel has told.
    assert f"{victim['id']} (pid {victim['pid']}): died by itself" in fault.why(victim["id"])


def test_a_zygote_stopped_while_it_loads_fails_the_reload_and_nothing_else(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nboot_timeout = "1s"'))
    srvd.good("two", apps.SLOW.format(seconds=0.5))
    with under_load(srvd, "SIGSTOP of a zygote that loads (boot_timeout 1 s)") as fault:
        before = srvd.names()
        op = srvd.order("reload")
        srvd.wait_operation(op, "load")
        loading = wait_for(lambda: [one for one in srvd.zygotes() if "web@2" in " ".join(one.cmdline())])[0]
        fault.strikes()
        loading.suspend()
        fault.repaired(lambda: srvd.operation(op)["state"] == "failed")
        assert srvd.names() == before
    assert fault.lost() == []
    assert "was not loaded within 1 s" in srvd.operation(op)["error"]["message"]
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
    assert "the process ended while it was loaded (signal 9)" in srvd.operation(op)["error"]["message"]


def test_a_worker_that_ends_while_its_zygote_is_stopped_is_no_zombie_for_long(starter: Starter) -> None:
    """Its parent cannot reap it; when that has been replaced, it is the daemon's child, and is reaped."""
    srvd = starter(config=toml('workers = 2\nboot_timeout = "1s"'))
    (zygote,) = srvd.zygotes()
    zygote.suspend()
    victim = srvd.serving()[0]
    os.kill(victim["pid"], signal.SIGKILL)
    srvd.wait_serving(2, without=victim["id"])
    wait_for(lambda: not os.path.exists(f"/proc/{victim['pid']}"))
