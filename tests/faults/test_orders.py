"""Orders at bad moments, under load: stops while something is under way, reloads and scales on top of each other.

After a stop there is nobody to ask `srvctl why`: what is claimed instead is what the asker was told, and the log.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd, is_alive, toml
from tests.support.fault import under_load
from tests.support.load import Failure, Load
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

SLOW = apps.good("one", apps.SLOW_IF_TOLD.format(seconds=30))
TERM, INT, QUIT = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT


def _ended(srvd: Srvd, began: float, name: str) -> float:
    """It ends by itself with 0 and leaves no process; seconds since `began`."""
    assert srvd.wait() == 0
    took = time.monotonic() - began
    print(f"{name}: over after {1e3 * took:.0f} ms")  # noqa: T201 - a figure to read
    assert not srvd.socket.exists()
    return took


def _lost(load: Load) -> list[Failure]:
    """By whoever had been let in. Who connects when the port is closed is refused, which is no loss."""
    return [failure for failure in load.failed if failure.holder]


def _askers(srvd: Srvd) -> int:
    """Connections that the daemon has accepted on its control socket: unix(7), /proc/net/unix."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return len([line for line in lines if line.endswith(f" {srvd.socket}")]) - 1


# -- stop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
@pytest.mark.parametrize("where", ["zygote", "worker"])
def test_a_stop_during_boot_ends_what_boots_and_is_told(starter: Starter, where: str, number: int) -> None:
    """Whoever waits for the start is told that it was stopped; "ok" is never said. Nobody serves yet, so there is no
    request to lose; the boot would take a minute to fail.
    """
    preload = "auto" if where == "zygote" else "off"
    srvd = starter.new(config=toml(f'workers = 2\npreload = "{preload}"'), code=apps.BROKEN["hangs at import"])
    srvd.start(ready=False)
    srvd.wait_logged("control socket")
    wait_for(lambda: len(srvd.family()) >= (1 if where == "zygote" else 2))
    family = srvd.family()
    with ThreadPoolExecutor() as pool:
        (start,) = srvd.call("op.list")["operations"]
        wait_for(lambda: _askers(srvd) == 0)  # ours before
        asked = pool.submit(srvd.ctl, "op", "wait", str(start["id"]))
        wait_for(lambda: _askers(srvd) == 1)
        began = time.monotonic()
        srvd.signal(number)
        assert _ended(srvd, began, f"stop during boot ({where})") < BOOT
        told = asked.result()
    assert told.returncode != 0
    assert "stop" in told.stderr, told.stderr
    assert not any(is_alive(one) for one in family)
    srvd.wait_logged(f"asked by signal {signal.Signals(number).name}")
    assert "ready: " not in srvd.logged()


@pytest.mark.parametrize("phase", ["load", "canary", "bake"])
def test_a_stop_during_a_reload_tells_its_asker_and_loses_nobody(starter: Starter, phase: str) -> None:
    settings = 'workers = 2\npreload = "off"' if phase == "canary" else "workers = 2"
    srvd = starter(config=toml(settings), code=SLOW)
    if phase != "bake":
        (srvd.folder / "slow").touch()
    with ThreadPoolExecutor() as pool, srvd.under_load(4) as load:
        reload = pool.submit(srvd.ctl, "reload", *(["--bake"] if phase == "bake" else []))
        wait_for(lambda: any(op["kind"] == "reload" for op in srvd.call("op.list")["operations"]))
        (op,) = [op["id"] for op in srvd.call("op.list")["operations"] if op["kind"] == "reload"]
        srvd.wait_operation(op, phase)
        began = time.monotonic()
        stop = pool.submit(srvd.ctl, "stop")
        assert stop.result().returncode == 0
        load.over.set()
        asked = reload.result()
    assert _ended(srvd, began, f"stop during a reload ({phase})") < BOOT
    assert asked.returncode != 0
    assert "stop" in asked.stderr
    assert _lost(load) == []
    srvd.wait_logged("reload: failed: the daemon was stopped before this was done")


def test_a_stop_while_a_scale_is_under_way_loses_nobody_and_tells_its_asker(starter: Starter) -> None:
    wait = "lambda: os.path.exists('slow') and time.sleep(9)"
    slow_boot = f"import os, time\nos.register_at_fork(after_in_child={wait})\n"
    srvd = starter(config=toml("workers = 2"), code=apps.good("one", slow_boot))
    (srvd.folder / "slow").touch()
    with ThreadPoolExecutor() as pool, srvd.under_load(4) as load:
        scale = pool.submit(srvd.ctl, "scale", "4")
        wait_for(lambda: srvd.pool()["booting"] == 2)
        began = time.monotonic()
        srvd.signal(TERM)
        asked = scale.result()
        load.over.set()
        assert _ended(srvd, began, "stop during a scale") < BOOT
    assert asked.returncode != 0
    assert "stop" in asked.stderr
    assert _lost(load) == []


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.45, 0.6])
def test_a_stop_during_an_upgrade_wins_tells_its_asker_and_loses_nobody(srvd: Srvd, delay: float) -> None:
    """Before the exec, in the middle of it and after it: the signal stays pending until there is somebody to obey."""
    with ThreadPoolExecutor() as pool, srvd.under_load(4) as load:
        family = srvd.family()
        wait_for(lambda: _askers(srvd) == 0)
        upgrade = pool.submit(srvd.ctl, "upgrade")
        wait_for(lambda: upgrade.done() or _askers(srvd) > 0)
        assert stays(lambda: srvd.process is not None, delay)
        began = time.monotonic()
        srvd.signal(TERM)
        load.over.set()
        asked = upgrade.result()
        assert _ended(srvd, began, f"stop {delay} s after an upgrade was asked for") < BOOT
    assert not any(is_alive(one) for one in family)
    assert _lost(load) == []
    srvd.wait_logged("asked by signal SIGTERM")
    assert srvd.logged().rstrip().endswith("stopped")
    assert (asked.returncode == 0) == ("upgrade: done" in srvd.logged())
    assert asked.returncode == 0 or "stop" in asked.stderr, asked.stderr


def test_a_second_term_does_not_wait_for_requests_and_kills_only_these(starter: Starter) -> None:
    """The first one would wait for ten minutes."""
    srvd = starter(config=toml('workers = 2\ndrain_timeout = "600s"'))
    with ThreadPoolExecutor() as pool, srvd.under_load(4) as load:
        hung = pool.submit(srvd.get, "/hang")
        wait_for(lambda: any(one["request"] == "GET /hang" for one in srvd.call("workers")["workers"]))
        hanging = next(one["id"] for one in srvd.call("workers")["workers"] if one["request"] == "GET /hang")
        srvd.signal(TERM)
        srvd.wait_logged("asked by signal SIGTERM")
        wait_for(lambda: len(srvd.family()) == 2)  # the other worker has finished, and left
        load.over.set()
        began = time.monotonic()
        srvd.signal(TERM)
        assert _ended(srvd, began, "a second SIGTERM") < BOOT
        assert hung.exception(30) is not None
    assert [failure for failure in _lost(load) if failure.holder != hanging] == []
    assert len({failure.port for failure in _lost(load)}) == len(_lost(load))  # one on each connection at most
    srvd.wait_logged("stopping in a hurry")


def test_a_worker_that_is_stopped_leaves_all_the_same(starter: Starter) -> None:
    """It is continued, and finishes its request: a stop loses nothing of it, either."""
    srvd = starter(config=toml("workers = 1"))
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/sleep/1")
        wait_for(lambda: srvd.serving()[0]["busy"])
        os.kill(srvd.serving()[0]["pid"], signal.SIGSTOP)
        began = time.monotonic()
        srvd.signal(TERM)
        assert slow.result().startswith("one ")
        assert _ended(srvd, began, "stop with a stopped worker") < BOOT


def test_a_stop_does_not_wait_for_a_zygote_that_is_stopped(starter: Starter) -> None:
    """Its workers leave by themselves. It cannot, and is killed."""
    srvd = starter(config=toml('workers = 2\nboot_timeout = "600s"'))
    with srvd.under_load(4) as load:
        (zygote,) = srvd.zygotes()
        zygote.suspend()
        began = time.monotonic()
        srvd.signal(TERM)
        load.over.set()
        assert _ended(srvd, began, "stop with a stopped zygote") < BOOT
        assert not is_alive(zygote)
    assert _lost(load) == []


# -- on top of each other -----------------------------------------------------------------------------------------


def test_reloads_and_scales_on_top_of_each_other_are_all_answered_truly(starter: Starter) -> None:
    """A reload while another one loads is joined or waits; a scale applies to both generations at once."""
    srvd = starter(config=toml("workers = 2\nbake = 0\nrollback_window = 0"), code=SLOW.replace("30", "1"))
    (srvd.folder / "slow").touch()
    with ThreadPoolExecutor() as pool, under_load(srvd, "reloads and scales on top of each other") as fault:
        fault.strikes()
        first = pool.submit(srvd.ctl, "reload")
        wait_for(lambda: any(op["phase"] == "load" for op in srvd.call("op.list")["operations"]))
        second = pool.submit(srvd.ctl, "reload")
        scale = pool.submit(srvd.ctl, "scale", "4")
        more = pool.submit(srvd.ctl, "scale", "+1")
        recycle = pool.submit(srvd.ctl, "recycle")
        done = [future.result() for future in (first, second, scale, more, recycle)]
        assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * 5
        fault.repaired(lambda: srvd.pool()["state"] == "ready" and len(srvd.names()) == srvd.pool()["desired"])
    assert fault.lost() == []
    assert {death["exit_code"] for death in srvd.deaths()} == {0}  # all of them were told to leave
    assert srvd.pool()["desired"] in (
        4,
        5,
    )  # 4 and one more, or one more and then 4: either may be the first
    assert not srvd.call("op.list")["operations"]


def test_reloads_during_a_reload_are_one_more_and_each_is_told_why_it_failed(starter: Starter) -> None:
    """The first may have read the former code; those that wait for its end are the same one."""
    srvd = starter(config=toml("workers = 2"))
    srvd.deploy(apps.SLOW.format(seconds=1) + apps.BROKEN["raises at import"])
    with ThreadPoolExecutor() as pool, under_load(srvd, "a broken reload, asked for three times at once") as fault:
        before = srvd.names()
        fault.strikes()
        asked = [pool.submit(srvd.ctl, "reload") for _ in range(3)]
        told = [one.result() for one in asked]
        fault.repaired(lambda: srvd.pool()["state"] == "ready" and not srvd.call("op.list")["operations"])
        assert [one.returncode for one in told] == [1, 1, 1]
        assert all("RuntimeError: the deploy is broken" in one.stderr for one in told)
        assert srvd.names() == before
    assert fault.lost() == []
    assert [op["kind"] for op in srvd.call("history")["operations"]].count("reload") in (1, 2)
    assert "no worker has died" in fault.why()


@pytest.mark.parametrize("size", [4, 1])
def test_a_scale_during_a_reload_is_done_at_once_and_holds_for_both_generations(starter: Starter, size: int) -> None:
    srvd = starter(config=toml("workers = 2\nbake = 0\nrollback_window = 0"), code=apps.good(before=apps.HELD))
    (srvd.folder / "held").touch()
    with under_load(srvd, f"a scale to {size} while a reload loads") as fault:
        op = srvd.order("reload")
        srvd.wait_operation(op, "load")
        fault.strikes()
        assert srvd.ctl("scale", str(size)).returncode == 0
        fault.repaired(lambda: len(srvd.names()) == size)
        assert all(name.startswith("web/1#") for name in srvd.names())
        assert srvd.operation(op)["state"] == "running"
        (srvd.folder / "held").unlink()
        srvd.wait_operation(op, "done")
        wait_for(lambda: len(srvd.names()) == size and all(name.startswith("web/2#") for name in srvd.names()))
    assert fault.lost() == []
    assert {(death["cause"], death["exit_code"]) for death in srvd.deaths()} == {("retired", 0)}


def test_a_worker_killed_in_a_reload_is_made_up_for(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"), code=SLOW.replace("30", "1"))
    (srvd.folder / "slow").touch()
    with ThreadPoolExecutor() as pool, under_load(srvd, "a worker killed while a reload loads") as fault:
        reload = pool.submit(srvd.ctl, "reload")
        wait_for(lambda: any(op["phase"] == "load" for op in srvd.call("op.list")["operations"]))
        victim = fault.kills()
        fault.replaced(victim, 2)
        assert reload.result().returncode == 0
    assert fault.lost() == []
    assert "killed by signal 9" in fault.why(victim)


def test_a_second_daemon_on_the_same_socket_is_refused_and_harms_nobody(starter: Starter, srvd: Srvd) -> None:
    """Nothing is to be repaired: the first one goes on as if nothing had been."""
    with under_load(srvd, "a second start") as fault:
        host, port = srvd.address()
        second = starter.new("--socket", str(srvd.socket), "--bind", f"{host}:{port}")
        done = second.run()
        assert done.returncode == 71
        assert f"pid {srvd.pid}" in done.stderr or "in use" in done.stderr
        third = starter.new("--socket", str(srvd.socket)).run()
        assert third.returncode == 71
        assert f"pid {srvd.pid}" in third.stderr
        fault.load.more()
        assert srvd.call("ping")
    assert fault.lost() == []
    assert "no worker has died" in fault.why()
