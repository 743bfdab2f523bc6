"""Claims about events of a real daemon: each is told by its name, with the fields that docs/reference/events.md has."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
from typing import Any

import pytest

from srvd.core.event_names import EVENTS, EventName
from srvd.core.model import Kind
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

KINDS = {kind.value for kind in Kind}


def told(srvd: Srvd) -> list[dict[str, Any]]:
    """All events that the daemon has kept, as `srvctl events --json` prints them."""
    done = srvd.ctl("events", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def names(srvd: Srvd) -> list[str]:
    return [event["name"] for event in told(srvd)]


def declared(name: str) -> EventName:
    """The member behind a name that was told. Raises `ValueError`: there is none."""
    topic, _, what = name.partition(".")
    return EventName(f"operation.{what}" if topic in KINDS else name)


def check(events: list[dict[str, Any]]) -> None:
    for event in events:
        name = declared(event["name"])
        assert (event["topic"], event["data"]["level"]) == (name.topic, EVENTS[name].level.value)
        assert set(event["data"]) == {"level", "text", *EVENTS[name].fields.split()}, event


def test_orders_and_deaths_are_told_by_their_names(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nbake = "100ms"'))
    srvd.kill_worker()
    wait_for(lambda: "pool.degraded" in names(srvd) and names(srvd)[-1] == "pool.ready")
    for words in (("scale", "3"), ("reload",), ("rollback",), ("recycle", "web"), ("pause", "web"), ("resume", "web"),
                  ("reopen",), ("upgrade", "--check")):  # fmt: skip
        done = srvd.ctl(*words)
        assert done.returncode == 0, done.stderr
    srvd.deploy(apps.BROKEN["raises at import"])
    assert srvd.ctl("reload").returncode == 1
    events = told(srvd)
    check(events)
    ends = {f"{kind}.{what}" for kind in ("scale", "recycle", "pause", "resume", "reopen", "upgrade")
            for what in ("asked", "done")}  # fmt: skip
    changes = {f"{kind}.{what}" for kind in ("start", "reload", "rollback") for what in ("asked", "committed", "done")}
    assert ends | changes | {
        "daemon.ready", "pool.ready", "pool.degraded", "generation.loaded", "generation.active", "worker.ready",
        "worker.left", "worker.died", "reload.failed",
    } <= {event["name"] for event in events}  # fmt: skip
    (died,) = (event["data"] for event in events if event["name"] == "worker.died")
    assert died["cause"] == "signal"
    failed = next(event["data"] for event in events if event["name"] == "reload.failed")
    assert "the deploy is broken" in failed["text"]
    assert "reload.failed" in srvd.ctl("events").stdout


def test_workers_that_do_not_get_on_are_told_by_their_names(starter: Starter) -> None:
    pool = 'workers = 2\nrequest_timeout = "1s"\ndrain_timeout = "1s"\nmax_requests = 3'
    srvd = starter(config=toml(pool))
    os.kill(srvd.serving()[0]["pid"], signal.SIGSTOP)
    wait_for(lambda: "worker.continued" in names(srvd))
    with contextlib.closing(srvd.connect()) as connection:
        connection.request("GET", "/hang")
        wait_for(lambda: {"worker.request_timeout", "worker.drain_timeout"} <= set(names(srvd)), BOOT)
    wait_for(lambda: "request_timeout" in [event["data"].get("cause") for event in told(srvd)])
    wait_for(lambda: srvd.get() and "worker.worn" in names(srvd))
    check(told(srvd))


def test_a_release_that_dies_while_it_bakes_is_told_by_its_names(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\nbake = "60s"'))
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    for _ in range(3):
        srvd.wait_serving(1)
        with contextlib.suppress(http.client.HTTPException, OSError):
            srvd.get("/exit")
    wait_for(lambda: {"generation.taken_back", "rollback.done"} <= set(names(srvd)))
    check(told(srvd))


def test_loads_that_hang_and_workers_that_cannot_boot_are_told_by_their_names(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\nboot_timeout = "8s"'))
    srvd.deploy(apps.BROKEN["hangs at import"])
    assert srvd.ctl("reload").returncode == 1
    wait_for(lambda: {"generation.load_timeout", "reload.failed"} <= set(names(srvd)))
    (zygote,) = srvd.zygotes()
    srvd.good()
    zygote.kill()
    wait_for(lambda: {"generation.zygote_died", "repair.committed", "repair.done"} <= set(names(srvd)))
    check(told(srvd))
