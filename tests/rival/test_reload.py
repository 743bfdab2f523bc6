"""Rows of the rival's table: reloads that are refused, slow, preloaded, stuck, or disturbed by deaths and a stop.

The docstrings quote the row: the scenario – what gunicorn 27.0.1 was seen to do. Rows about max_requests are tested
with that setting, which does not exist yet; reloads of broken code are in test_broken_code.py.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from srvd.errors import ShuttingDown
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, ask, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

AT_ONCE = 5.0
"""Seconds: "at once" takes milliseconds, but the machine may be busy. Far below the delay it is told from."""


def test_reload_with_a_bad_config(starter: Starter) -> None:
    """Reload with a bad config – dead in 0.1 s."""
    srvd = starter(config=toml("workers = 2"))
    before = srvd.names()
    srvd.configure(toml("workers = 2\nrequest_timout = 3"))
    reload = srvd.ctl("reload")
    assert reload.returncode == 78
    assert f"{srvd.folder}/srvd.toml:7" in reload.stderr
    assert "request_timeout" in reload.stderr
    assert srvd.names() == before
    assert srvd.get().startswith("one ")
    assert "config" in [step["phase"] for step in srvd.operation(2)["timeline"]]
    assert len(srvd.zygotes()) == 1


def test_reload_with_a_busy_port(starter: Starter) -> None:
    """Reload with a busy port – dead in 5.1 s."""
    srvd = starter(config=toml("workers = 2"))
    before, fds = srvd.names(), srvd.fds()
    with socket.create_server(("127.0.0.1", 0)) as other:
        busy = f"127.0.0.1:{other.getsockname()[1]}"
        srvd.configure(toml("workers = 2", f'[listeners.other]\nbind = ["127.0.0.1:0", "{busy}"]'))
        reload = srvd.ctl("reload")
    assert reload.returncode == 1  # nothing has changed
    assert f"listen on {busy}: Address already in use" in reload.stderr
    assert srvd.names() == before
    assert srvd.get().startswith("one ")
    assert [entry["name"] for entry in srvd.status()["listeners"]] == ["web"]
    wait_for(lambda: srvd.fds() <= fds)  # the listener that could be opened is closed again


def test_reload_of_an_app_that_takes_long_to_import(srvd: Srvd) -> None:
    """Reload of an app that takes 4 s to import – 3.94 s in which nobody serves."""
    with srvd.under_load(4) as load:
        srvd.good("two", apps.SLOW.format(seconds=2))
        assert srvd.ctl("reload").returncode == 0
        load.more()
    assert load.failed == []
    assert load.releases == {"one", "two"}
    assert load.gap < 1.0


def test_preload_and_reload(starter: Starter) -> None:
    """Preload and reload – with preload, reload does nothing at all."""
    heavy = "ballast = [bytes([n]) * (1 << 20) for n in range(24)]\n"
    unshared = _memory_of_workers(starter(config=toml('workers = 4\npreload = "off"'), code=apps.good("one", heavy)))
    srvd = starter(config=toml('workers = 4\npreload = "on"'), code=apps.good("one", heavy))
    srvd.good("two", heavy)
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("two web/2#")
    assert srvd.pool()["preloaded"]
    assert _memory_of_workers(srvd) < unshared / 2


def _memory_of_workers(srvd: Srvd) -> int:
    wait_for(lambda: srvd.pool()["draining"] == 0)
    return sum(psutil.Process(worker["pid"]).memory_full_info().pss for worker in srvd.serving())


@pytest.mark.parametrize("preload", ["on", "off"])
def test_import_hangs(starter: Starter, preload: str) -> None:
    """Import hangs – never noticed (clock bug), no boot timeout."""
    config = toml(f'workers = 1\nboot_timeout = "1s"\npreload = "{preload}"')
    srvd = starter.new(config=config, code=apps.BROKEN["hangs at import"])
    done = srvd.run()
    assert done.returncode == 1
    assert 'app.py", line 2 in <module>' in done.stderr  # the stack
    assert "in time" in done.stderr or "within 1 s" in done.stderr


def test_a_worker_dies_during_a_reload(starter: Starter) -> None:
    """A worker dies during a reload – 10 s delay: the main loop is blocked."""
    srvd = starter("--workers", "2", code=apps.good("one", apps.HELD))
    (srvd.folder / "held").touch()
    op = srvd.order("reload")
    srvd.wait_operation(op, "load")
    for _ in range(3):
        victim = srvd.kill_worker()
        killed = time.monotonic()
        srvd.wait_serving(2, without=victim)
        assert time.monotonic() - killed < AT_ONCE
    assert srvd.operation(op)["phase"] == "load"
    (srvd.folder / "held").unlink()
    assert srvd.call("op.wait", id=op)["operation"]["state"] == "done"
    assert len(srvd.serving()) == 2


def test_term_comes_during_a_reload(starter: Starter) -> None:
    """TERM comes during a reload – 10 s delay. Here the one who asked for the reload is told that it was stopped."""
    srvd = starter("--workers", "2", code=apps.good("one", apps.SLOW_IF_TOLD.format(seconds=30)))
    (srvd.folder / "slow").touch()
    with ThreadPoolExecutor() as pool:
        reload = pool.submit(srvd.call, "reload")
        wait_for(lambda: "reload" in [op["kind"] for op in srvd.call("op.list")["operations"]])
        srvd.wait_operation(2, "load")
        told = time.monotonic()
        assert srvd.stop() == 0
        assert time.monotonic() - told < AT_ONCE
        with pytest.raises(ShuttingDown):
            reload.result(10)


def test_idle_keep_alive_clients_at_a_reload(srvd: Srvd) -> None:
    """Idle keep-alive clients at a reload – 16 of 16 find the connection closed."""
    clients = [srvd.connect() for _ in range(16)]
    for client in clients:
        ask(client)
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    answers = [_closing_answer(client) for client in clients]
    assert answers == [("one", "close")] * 16
    assert srvd.get().startswith("two ")
    wait_for(lambda: srvd.pool()["draining"] == 0)


def _closing_answer(client: http.client.HTTPConnection) -> tuple[str, str]:
    client.request("GET", "/")
    response = client.getresponse()
    answer = response.read().decode().split()[0], response.getheader("Connection", "")
    client.close()
    return answer


def test_w_1_an_old_worker_still_draining_the_new_one_killed(starter: Starter) -> None:
    """`-w 1`, an old worker still draining, the new one killed – not replaced: 34 s outage."""
    srvd = starter("--workers", "1")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: srvd.serving()[0]["busy"])
        assert srvd.ctl("reload").returncode == 0
        victim = srvd.kill_worker()
        killed = time.monotonic()
        srvd.wait_serving(1, without=victim)
        assert time.monotonic() - killed < AT_ONCE
        assert srvd.get().startswith("one web/2#")
        assert not slow.done()
        (srvd.folder / "over").touch()
        assert slow.result().startswith("one web/1#")  # and the draining one finished what it had
    os.kill(srvd.pid, signal.SIGTERM)
    assert srvd.wait() == 0
