"""A row of the rival's table: workers that have served long enough are replaced, and nobody notices."""

from __future__ import annotations

import time
from collections.abc import Callable

from srvd.config.settings import PoolSettings
from srvd.worker.loop import Loop
from srvd.worker.recycling import Recycling
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import toml
from tests.support.waiting import wait_for

SLOW_BOOT = "import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep(1.5))\n"
"""Each worker takes so long from its fork until it is ready."""


def test_max_requests_with_a_slow_boot(starter: Starter) -> None:
    """Row "max_requests with a slow boot": gaps of 1.5 s there. Here the replacement is ready first."""
    srvd = starter(config=toml("workers = 1\nmax_requests = 200"), code=apps.good(before=SLOW_BOOT))
    with srvd.under_load(4) as load:
        wait_for(lambda: len(srvd.deaths()) >= 2, within=60)
    assert load.failed == []
    assert load.gap < 1.0
    deaths = srvd.deaths()
    assert {death["cause"] for death in deaths} == {"recycled"}
    assert deaths[-1]["summary"] == "was replaced, had served 200 requests; exited with code 0"
    assert deaths[-1]["requests"] > 200  # it served on until the next one did


def test_a_pool_stays_ready_while_a_worn_worker_waits_for_its_replacement(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2\nmax_requests = 20"), code=apps.good(before=SLOW_BOOT))
    for _ in range(60):
        srvd.get("/")
    srvd.wait_logged("has served 20 requests; a replacement boots")
    seen = set()
    while not srvd.deaths():
        pool = srvd.pool()
        seen.add(pool["state"])
        assert pool["serving"] >= 2
        assert pool["booting"] <= 1  # one at a time
    assert seen == {"ready"}
    assert srvd.ctl("status").returncode == 0


def test_workers_that_wear_out_together_are_replaced_one_at_a_time(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 3\nmax_age = "700ms"\ndrain_timeout = "10s"'))
    first = srvd.names()
    most = 0
    while first & srvd.names():
        most = max(most, len(srvd.serving()) + srvd.pool()["booting"])
    assert most <= 4
    assert {death["summary"] for death in srvd.deaths()} == {"was replaced, had served for 0.7 s; exited with code 0"}
    assert srvd.pool()["restarts"] == 0
    assert srvd.pool()["strikes"] == 0


def test_replacing_worn_workers_stands_in_no_orders_way(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2\nmax_requests = 5"))
    with srvd.under_load(4) as load:
        assert srvd.ctl("reload").returncode == 0
        assert srvd.ctl("scale", "3").returncode == 0
        assert srvd.ctl("recycle").returncode == 0
    assert load.failed == []


def test_why_says_in_one_line_that_a_worker_was_replaced(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1\nmax_requests = 3"))
    for _ in range(3):
        srvd.get("/")
    wait_for(srvd.deaths)
    (line,) = srvd.ctl("why", "web/1#1").stdout.splitlines()
    assert "was replaced, had served 3 requests" in line


# -- in the worker -----------------------------------------------------------------------------------------------------


def recycling(say: Callable[[str], bool], settings: PoolSettings) -> Recycling:
    return Recycling(settings, Loop(), say)


def test_a_worker_says_once_that_it_is_worn() -> None:
    said: list[str] = []

    def say(reason: str) -> bool:
        said.append(reason)
        return True

    worn = recycling(say, PoolSettings("web", max_requests=3))
    worn.begin(0.0)
    for _ in range(10):
        worn.served(1.0)
    assert said == ["served 3 requests"]


def test_jitter_spreads_the_limit() -> None:
    said: list[str] = []

    def say(reason: str) -> bool:
        said.append(reason)
        return True

    for _ in range(50):
        worn = recycling(say, PoolSettings("web", max_requests=10, max_requests_jitter=5))
        for _ in range(20):
            worn.served(1.0)
    assert len(said) == 50
    assert 2 < len(set(said)) <= 6
    assert set(said) <= {f"served {count} requests" for count in range(10, 16)}


def test_a_link_that_is_full_is_tried_again() -> None:
    answers = [False, False, True]
    worn = recycling(lambda _: answers.pop(0), PoolSettings("web", max_age=5.0))
    worn.begin(100.0)
    assert worn.deadline == 105.0
    worn.expire(105.0)
    assert worn.deadline == 106.0
    worn.expire(106.0)
    worn.expire(107.0)
    assert worn.deadline == float("inf")
    assert answers == []


def test_without_limits_nothing_is_counted_and_no_deadline_is_set() -> None:
    worn = recycling(lambda _: True, PoolSettings("web"))
    worn.begin(time.monotonic())
    assert not worn.counts
    assert worn.deadline == float("inf")
