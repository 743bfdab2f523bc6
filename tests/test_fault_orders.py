"""Orders at bad moments, under load: stops while something is under way, reloads and scales on top of each other."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests import apps
from tests.conftest import Starter
from tests.daemon import BOOT, Srvd, toml
from tests.fault import under_load
from tests.support import wait_for

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


# -- stop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [TERM, INT, QUIT])
@pytest.mark.parametrize("where", ["zygote", "worker"])
def test_a_stop_during_boot_ends_what_boots_and_is_told(starter: Starter, where: str, number: int) -> None:
    """Whoever waits for the start is told that it was stopped; "ok" is never said."""
    preload = "auto" if where == "zygote" else "off"
    srvd = starter.new(config=toml(f'workers = 2\npreload = "{preload}"'), code=apps.BROKEN["hangs at import"])
    srvd.start(ready=False)
    srvd.wait_logged("control socket")
    wait_for(lambda: len(srvd.family()) >= (1 if where == "zygote" else 2))
    family = srvd.family()
    began = time.monotonic()
    srvd.signal(number)
    assert _ended(srvd, began, f"stop during boot ({where})") < BOOT
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)
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
    _ended(srvd, began, f"stop during a reload ({phase})")
    assert asked.returncode != 0
    assert "stop" in asked.stderr
    assert [failure for failure in load.failed if failure.holder] == []


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
        _ended(srvd, began, "stop during a scale")
    assert asked.returncode != 0
    assert [failure for failure in load.failed if failure.holder] == []


def test_a_second_term_does_not_wait_for_requests_and_kills_only_these(srvd: Srvd) -> None:
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
        _ended(srvd, began, "a second SIGTERM")
        assert hung.exception(30) is not None
    assert [failure for failure in load.failed if failure.holder not in ("", hanging)] == []


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
        _ended(srvd, began, "stop with a stopped worker")


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
        fault.repaired(lambda: srvd.pool()["state"] == "ready" and len(srvd.names()) == srvd.pool()["wish"])
    assert fault.lost() == []
    assert srvd.pool()["wish"] in (4, 5)  # 4 and one more, or one more and then 4: which came first is nobody's promise
    assert not srvd.call("op.list")["operations"]


def test_a_worker_killed_in_a_reload_is_made_up_for(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"), code=SLOW.replace("30", "1"))
    (srvd.folder / "slow").touch()
    with ThreadPoolExecutor() as pool, under_load(srvd, "a worker killed while a reload loads") as fault:
        reload = pool.submit(srvd.ctl, "reload")
        wait_for(lambda: any(op["phase"] == "load" for op in srvd.call("op.list")["operations"]))
        fault.strikes()
        victim = srvd.kill_worker()
        fault.replaced(victim, 2)
        assert reload.result().returncode == 0
    assert fault.lost(victim) == []
    assert "killed by signal 9" in fault.why(victim)


def test_a_second_daemon_on_the_same_socket_is_refused_and_harms_nobody(starter: Starter, srvd: Srvd) -> None:
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
