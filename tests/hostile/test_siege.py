"""The claim that a fully hostile pool costs its neighbour nothing: all abuses by the dice, and the neighbour is asked.

Some seconds; SRVD_SIEGE_SECONDS=600 is the long form, SRVD_SIEGE_SEED another order of the same abuses. The act of each
worker follows from the seed and its serial, so what a run has found can be played again.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import re
import statistics
import time

import psutil
import pytest

from srvd.errors import SrvdError
from tests.conftest import Starter
from tests.hostile.attackers import ROOT
from tests.hostile.channels import ABUSES, LETHAL, PROGRAM
from tests.hostile.test_channels import two_pools
from tests.support.daemon import Srvd
from tests.support.load import load_on
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(1200)]

SECONDS = float(os.environ.get("SRVD_SIEGE_SECONDS", "15"))
SEED = int(os.environ.get("SRVD_SIEGE_SEED", "1"))

GROWTH = 4 << 20
"""Bytes by which the daemon may have grown."""

MILD = tuple(
    name for name in ABUSES if name not in LETHAL and name not in ("process__stop", "process__ignores_signals")
)
"""What a worker does in its first seconds, and mostly."""

SIEGE = """
def siege():
    time.sleep(1.1)  # a death before a second of readiness would have the pool back off
    serial = int(open("/proc/self/cmdline").read().split("#")[-1].split()[0].strip("\\0") or 0)
    dice, began = Dice(SEED * 1000 + serial), time.monotonic()
    while True:
        name = dice.choice(MILD if time.monotonic() - began < 2 or dice.random() < 0.9 else LETHAL)
        os.write(2, f"act {name}\\n".encode())
        try:
            globals()[name](dice)
        except Exception as exc:
            os.write(2, f"act failed {name} {exc!r}\\n".encode())
        time.sleep(0.02 + dice.random() / 10)

threading.Thread(target=siege, daemon=True).start()

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def orders(srvd: Srvd, seconds: float) -> dict[str, list[float]]:
    """Gives orders about the neighbour, and asks the hostile pool, for so long; how long each was not answered."""
    took: dict[str, list[float]] = collections.defaultdict(list)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for method, args in (
            ("status", {}), ("scale", {"pool": "other", "size": 3}), ("workers", {}),
            ("scale", {"pool": "other", "size": 2}), ("why", {}), ("op.list", {}),
        ):  # fmt: skip
            began = time.monotonic()
            srvd.call(method, **args)
            took[method].append(time.monotonic() - began)
            for _ in range(2):
                _provoke(srvd)
            time.sleep(0.1)
        _reload(srvd, took)
    return took


def _reload(srvd: Srvd, took: dict[str, list[float]]) -> None:
    """The neighbour is reloaded: when the order is accepted, and when it has ended."""
    began = time.monotonic()
    operation = srvd.order("reload", pool="other")
    took["reload accepted"].append(time.monotonic() - began)
    srvd.wait_operation(operation, "done", within=60)
    took["reload done"].append(time.monotonic() - began)


def _provoke(srvd: Srvd) -> None:
    """Has a worker begin; most of them answer nothing."""
    connection = srvd.connect(timeout=0.3)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        connection.getresponse().read()


@pytest.mark.skipif(not ROOT, reason="needs pools of two users: only root can start them")
def test_a_hostile_pool_costs_its_neighbour_nothing(starter: Starter) -> None:
    siege = f"SEED, MILD, LETHAL = {SEED!r}, {MILD!r}, {LETHAL!r}\n{SIEGE}"
    srvd = two_pools(starter, PROGRAM + siege, workers=4, seconds='request_timeout = "5s"')
    daemon = psutil.Process(srvd.pid)
    with load_on(srvd.address("other"), 4) as load:
        orders(srvd, min(5.0, SECONDS / 3))
        before = daemon.memory_info().rss
        took = orders(srvd, SECONDS)
        grown = daemon.memory_info().rss - before
    longest = {method: round(max(times), 3) for method, times in took.items()}
    log = srvd.logged()
    acts = collections.Counter(re.findall(r"act (\w+__\w+)", log))
    median = statistics.median(one for times in took.values() for one in times)
    print(f"{load.answered} answered, {len(load.failed)} lost, longest gap {load.gap:.3f} s")  # noqa: T201
    print(f"{sum(acts.values())} acts of {len(acts)} kinds, {srvd.pool('web')['restarts']} restarts")  # noqa: T201
    print(f"daemon {grown / 2**20:+.2f} MiB, {daemon.num_fds()} descriptors; orders {median:.3f} s, {longest}")  # noqa: T201
    assert load.failed == []
    assert [death for death in srvd.deaths(pool="other") if death["exit_code"] != 0] == []
    assert acts
    assert "LEAK" not in log
    assert "token-of-other" not in log
    assert not [line for line in log.splitlines() if "a bug in srvd" in line and not line.startswith("web/")]
    assert grown <= GROWTH
    assert max(one for method, one in longest.items() if method != "reload done") < 10  # 1 s on a quiet machine
    _is_limited(srvd)


def _is_limited(srvd: Srvd) -> None:
    """The neighbour's limit holds, under attack still: a request without end is ended, and its worker replaced."""
    before = {worker["id"] for worker in srvd.serving("other")}
    connection = srvd.connect("other", timeout=60)
    try:
        connection.request("GET", "/hang")
        began = time.monotonic()
        with pytest.raises((OSError, http.client.HTTPException)):
            connection.getresponse()
        assert time.monotonic() - began < 30
    finally:
        connection.close()

    def replaced() -> bool:
        try:
            return bool({worker["id"] for worker in srvd.serving("other")} - before)
        except SrvdError:
            return False

    wait_for(replaced, within=30)
