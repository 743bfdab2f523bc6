"""What srvctl shows and answers: status, operations, history, events, config – and what scripts rely on."""

from __future__ import annotations

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BIN, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

SLOW = apps.good("one", apps.SLOW_IF_TOLD.format(seconds=30))


def _slow_reload(srvd: Srvd) -> int:
    """A reload that will not end by itself; the number of its operation."""
    (srvd.folder / "slow").touch()
    op = srvd.order("reload")
    srvd.wait_operation(op, "load")
    return op


def test_status_has_what_scripts_rely_on(srvd: Srvd) -> None:
    for _ in range(5):
        srvd.get()
    status = srvd.ctl_json("status")
    assert status["schema"] == 2
    daemon = status["daemon"]
    assert (daemon["pid"], daemon["state"]) == (srvd.pid, "running")
    assert daemon["uptime_s"] >= 0
    assert daemon["version"]
    (pool,) = status["pools"]
    assert {name: pool[name] for name in ("name", "kind", "state", "generation", "desired", "configured")} == {
        "name": "web", "kind": "wsgi", "state": "ready", "generation": 1, "desired": 2, "configured": 2,
    }  # fmt: skip
    assert (pool["serving"], pool["booting"], pool["draining"]) == (2, 0, 0)
    for worker in pool["workers"]:
        assert worker["state"] == "serving"
        assert worker["rss_bytes"] > 1 << 20
        assert worker["generation"] == 1
    assert {worker["id"] for worker in pool["workers"]} == {"web/1#1", "web/1#2"}
    assert sum(worker["requests"] for worker in pool["workers"]) == 5
    host, port = srvd.address()
    assert status["listeners"] == [
        {"name": "web", "address": f"{host}:{port}", "scheme": "http", "certificate_expires_at": None}
    ]


def test_workers_shows_what_each_is_doing(srvd: Srvd) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        busy = [worker for worker in srvd.ctl_json("workers")["workers"] if worker["busy"]]
        assert [worker["request"] for worker in busy] == ["GET /until/over"]
        assert busy[0]["request_age_s"] >= 0
        assert busy[0]["connections"] == 1
        assert "GET /until/over" in srvd.ctl("workers").stdout
        (srvd.folder / "over").touch()
        slow.result()
    shown = srvd.ctl_json("workers")["workers"]
    assert [worker["request"] for worker in shown] == ["", ""]
    assert sum(worker["responses_by_class"][2] for worker in shown) == 1


def test_ping_without_a_daemon(starter: Starter) -> None:
    srvd = starter.new()
    ping = srvd.ctl("ping")
    assert ping.returncode == 69
    assert "srvd start" in ping.stderr


def test_an_operation_can_be_watched_waited_for_and_cancelled(starter: Starter) -> None:
    srvd = starter("--workers", "1", code=SLOW)
    op = _slow_reload(srvd)
    (listed,) = srvd.ctl_json("op", "list")["operations"]
    assert (listed["id"], listed["kind"], listed["state"]) == (op, "reload", "running")
    assert "reload" in srvd.ctl("op", "list").stdout
    assert "reload" in srvd.ctl("status").stdout  # what is under way
    shown = srvd.ctl_json("op", "show", str(op))["operation"]
    assert [step["phase"] for step in shown["timeline"]] == ["queued", "config", "load"]
    waited = srvd.ctl("op", "wait", str(op), "--timeout", "0.2")
    assert waited.returncode == 124
    assert srvd.operation(op)["state"] == "running"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(srvd.ctl, "op", "wait", str(op))
        wait_for(lambda: srvd.call("ping"))
        assert srvd.ctl("op", "cancel", str(op)).returncode == 0
        assert waiting.result().returncode == 1
    assert srvd.operation(op)["state"] == "cancelled"
    assert srvd.names() == {"web/1#1"}
    wait_for(lambda: len(srvd.zygotes()) == 1)
    assert srvd.ctl("op", "cancel", str(op)).returncode == 1  # it has ended
    assert srvd.ctl("op", "show", "99").returncode == 4


def test_a_reload_gives_up_after_its_timeout(starter: Starter) -> None:
    srvd = starter("--workers", "1", code=SLOW)
    (srvd.folder / "slow").touch()
    began = time.monotonic()
    reload = srvd.ctl("reload", "--timeout", "0.5s")
    assert reload.returncode == 1
    assert "nothing was changed" in reload.stderr
    assert time.monotonic() - began < 10
    assert srvd.names() == {"web/1#1"}
    wait_for(lambda: len(srvd.zygotes()) == 1)


def test_a_scale_gives_up_after_its_timeout_and_restores_the_size(starter: Starter) -> None:
    slow_boot = (
        "import os, time\nos.register_at_fork(after_in_child=lambda: os.path.exists('slow') and time.sleep(30))\n"
    )
    srvd = starter("--workers", "1", code=apps.good("one", slow_boot))
    (srvd.folder / "slow").touch()
    scale = srvd.ctl("scale", "3", "--timeout", "0.5s")
    assert scale.returncode == 1
    assert "back to 1" in scale.stderr
    assert srvd.pool()["desired"] == 1
    wait_for(lambda: len(srvd.family()) == 2)  # those that still booted are gone


def test_history_tells_who_did_what(srvd: Srvd) -> None:
    srvd.ctl("scale", "3")
    srvd.deploy(apps.BROKEN["raises at import"])
    srvd.ctl("reload")
    history = srvd.ctl_json("history")
    kinds = [(op["kind"], op["state"]) for op in history["operations"]]
    assert kinds == [("reload", "failed"), ("scale", "done"), ("start", "done")]
    assert {op["actor"]["name"] for op in history["operations"][:2]} == {_me(srvd)}
    assert history["total"] == 3
    text = srvd.ctl("history").stdout
    assert "scale web to 3" in text
    assert "the deploy is broken" in srvd.ctl("op", "show", "3").stdout


def _me(srvd: Srvd) -> str:
    name: str = srvd.call("op.show", id=2)["operation"]["actor"]["name"]
    return name


def test_events_that_were_and_events_as_they_come(srvd: Srvd) -> None:
    command = [str(BIN / "srvctl"), "-s", str(srvd.socket), "--json", "events", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=srvd.env) as follower:
        assert follower.stdout is not None
        first = json.loads(follower.stdout.readline())
        assert first["seq"] >= 1
        victim = srvd.kill_worker()
        seen: list[dict[str, Any]] = []
        for line in follower.stdout:
            seen.append(json.loads(line))
            if "ready" in seen[-1]["data"].get("text", "") and "web/1#3" in seen[-1]["data"]["text"]:
                break
        follower.terminate()
    texts = [event["data"].get("text", "") for event in seen]
    assert any(text.startswith(f"worker {victim} died") for text in texts)
    sequence = [first["seq"], *(event["seq"] for event in seen)]
    assert sequence == sorted(set(sequence))
    past = srvd.ctl("events")
    assert past.returncode == 0
    assert f"worker {victim} died" in past.stdout


def test_config_shows_values_and_their_origin(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 3\nenv = { TOKEN = "hush" }'))
    config = srvd.ctl_json("config")
    text = srvd.ctl("config").stdout
    assert re.search(rf"^pools\.web\.workers +3 +{srvd.folder}/srvd\.toml:6$", text, re.MULTILINE)
    assert "hush" not in text
    assert "hush" not in json.dumps(config)
    srvd.configure(toml("workers = 2"))
    assert re.search(
        r"^pools\.web\.workers +3 ", srvd.ctl("config").stdout, re.MULTILINE
    )  # what is in force, not what is on disk
    assert srvd.ctl("reload").returncode == 0
    assert re.search(r"^pools\.web\.workers +2 ", srvd.ctl("config").stdout, re.MULTILINE)


def test_an_order_that_is_not_waited_for_is_answered_at_once(starter: Starter) -> None:
    srvd = starter("--workers", "1", code=SLOW)
    (srvd.folder / "slow").touch()
    began = time.monotonic()
    reload = srvd.ctl("reload", "--no-wait")
    assert reload.returncode == 0
    assert time.monotonic() - began < 10
    assert srvd.operation(2)["state"] == "running"


def test_progress_is_quiet_off_a_terminal(srvd: Srvd) -> None:
    srvd.good("two")
    reload = srvd.ctl("reload")
    assert reload.returncode == 0
    assert "\x1b" not in reload.stdout + reload.stderr
    assert reload.stderr == ""
    assert "web@2" in reload.stdout


def test_orders_while_it_stops_are_refused(srvd: Srvd) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(srvd.get, "/until/over")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        with srvd.client() as client:
            client.call("stop", {"wait": False})
        reload = srvd.ctl("reload")
        assert reload.returncode == 1
        assert "stopping" in reload.stderr
        status = srvd.ctl("status")
        assert status.returncode == 3
        (srvd.folder / "over").touch()
        assert slow.result().startswith("one ")
    assert srvd.wait() == 0


def test_stop_answers_when_the_daemon_is_gone(srvd: Srvd) -> None:
    family = srvd.family()
    stop = srvd.ctl("stop")
    assert stop.returncode == 0
    assert not srvd.socket.exists()
    assert not any(process.is_running() for process in family)
    assert srvd.process is not None
    assert srvd.wait(2) == 0
    assert (srvd.ctl("status").returncode, srvd.ctl("ping").returncode) == (3, 69)


def test_stop_now_and_stop_with_a_timeout_do_not_wait_for_requests(starter: Starter) -> None:
    for words in (("stop", "--now"), ("stop", "--timeout", "0.5s")):
        srvd = starter("--workers", "1")
        with ThreadPoolExecutor() as pool:
            hung = pool.submit(srvd.get, "/hang")
            wait_for(lambda srvd=srvd: srvd.serving()[0]["busy"])  # type: ignore[misc]
            began = time.monotonic()
            assert srvd.ctl(*words).returncode == 0
            assert time.monotonic() - began < 5
            assert hung.exception() is not None
        assert srvd.wait() == 0
