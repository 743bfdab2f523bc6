"""Reloads of a daemon under load: nothing lost, no gap, nothing left over; and what becomes of bad ones later."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from srvd.errors import BootFailed, LoadFailed, SrvdError
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Srvd, free_port, toml
from tests.support.users import own_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

USER = own_name("uid {uid}")

GAP = 1.0
"""Seconds in which nobody at all is answered: the bench asks for 0.1; here the machine may be busy with other tests."""


def test_ten_reloads_under_keep_alive_load(starter: Starter, capsys: pytest.CaptureFixture[str]) -> None:
    srvd = starter(config=toml("workers = 4\nbake = 0\nrollback_window = 0"))
    fds, family = srvd.fds(), len(srvd.family())
    with srvd.under_load(8) as load:
        load.more()
        calm = load.gap
        load.gap = 0.0
        for number in range(10):
            srvd.good(f"release{number}")
            assert srvd.call("reload")["operation"]["state"] == "done"
            load.more(20)
        gap = load.gap
    assert load.failed == []
    assert load.releases == {"one", *(f"release{number}" for number in range(10))}
    with capsys.disabled():
        text = f"\n10 reloads: {load.answered} requests, longest gap {gap * 1e3:.0f} ms ({calm * 1e3:.0f} ms before)\n"
        print(text)  # noqa: T201 - the figure is what a person runs this test for
    assert gap < GAP
    wait_for(lambda: len(srvd.family()) == family)
    wait_for(lambda: srvd.fds() <= fds)
    assert srvd.pool()["generation"] == 11


@pytest.mark.parametrize("left", ["", "[pools.web]\n", '[listeners.web]\nbind = ["127.0.0.1:0"]\n'])
def test_a_file_that_was_cut_short_is_refused_and_the_application_stays(starter: Starter, left: str) -> None:
    srvd = starter(config=toml("workers = 1"))
    before = srvd.names()
    srvd.configure(left)
    reload = srvd.ctl("reload")
    assert reload.returncode == 78
    assert f"{srvd.folder}/srvd.toml" in reload.stderr
    assert srvd.names() == before
    assert srvd.get().startswith("one ")


def test_a_configuration_from_a_pipe_starts_and_is_refused_at_a_reload(starter: Starter) -> None:
    srvd = starter.new(config=toml("workers = 1"))
    config = srvd.folder / "srvd.toml"
    text = config.read_text()
    config.unlink()
    os.mkfifo(config)
    srvd.start(ready=False)
    config.write_text(text)
    wait_for(srvd.is_ready, within=BOOT)
    reload = srvd.ctl("reload", timeout=10)
    assert reload.returncode == 78
    assert f"{config}: it is no file and cannot be read again; nothing was changed" in reload.stderr
    assert srvd.get().startswith("one ")


def test_a_health_probe_that_fails_stops_a_reload(starter: Starter) -> None:
    sick = apps.good("sick").replace(
        'if path == "/exit":',
        'if path == "/healthz":\n'
        "        import sys\n"
        '        print("no database", file=sys.stderr, flush=True)\n'
        '        start_response("503 Not Yet", [])\n'
        "        return []\n"
        "    if 0:",
    )
    srvd = starter(config=toml('workers = 2\nhealth = "/healthz"\nhealth_timeout = "500ms"'))
    before = srvd.names()
    srvd.deploy(sick)
    failed = srvd.ctl("reload")
    assert failed.returncode == 1
    told = r"the health probe failed: GET /healthz: 503 Not Yet \(asked \d times in 0\.5 s\) \(step: probe\)\n"
    assert re.search(told, failed.stderr), failed.stderr
    assert failed.stderr.count("503 Not Yet") == 1  # not once more as its own proof
    assert "`srvctl why web/2#3`" in failed.stderr
    wait_for(lambda: srvd.deaths(worker="web/2#3"))
    why = srvd.ctl("why", "web/2#3").stdout
    assert "did not pass the health probe" in why
    assert "    no database\n" in why
    assert srvd.names() == before
    srvd.good("two")
    assert srvd.call("reload")["operation"]["state"] == "done"
    assert srvd.get().startswith("two ")


def test_a_health_probe_that_hangs_stops_a_reload(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 2\nhealth = "/healthz"\nhealth_timeout = "1s"'))
    before = srvd.names()
    srvd.deploy(apps.good("stuck").replace('"/hang"', '"/healthz"'))
    reload = srvd.ctl("reload")
    assert reload.returncode == 1
    assert "not answered within 1 s" in reload.stderr
    assert "in hang" in reload.stderr  # where it is
    assert srvd.deaths(worker="web/2#3")[0]["cause"] == "health_timeout"
    assert srvd.names() == before


def test_workers_that_cannot_boot_stop_a_reload(starter: Starter) -> None:
    """The application loads in the zygote and fails after the fork only."""
    srvd = starter("--workers", "2")
    before = srvd.names()
    srvd.deploy(apps.good("two", apps.CRASH_IF_TOLD))
    (srvd.folder / "crash").touch()
    with pytest.raises(BootFailed, match="exited with code 9"):
        srvd.call("reload")
    assert srvd.names() == before
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize("preload", ["on", "off"])
def test_an_exception_of_a_million_characters_does_not_make_a_sentence_of_a_million(
    starter: Starter, preload: str
) -> None:
    srvd = starter(config=toml(f'workers = 1\npreload = "{preload}"'))
    srvd.deploy("raise RuntimeError('long ' * 200_000)")
    with pytest.raises(SrvdError, match="long") as failed:
        srvd.call("reload")
    assert len(failed.value.message) < 1000
    assert "Traceback" in str(failed.value.detail["traceback"])
    assert len(max(srvd.logged().splitlines(), key=len)) < 1000
    assert srvd.get().startswith("one ")


@pytest.mark.parametrize("kind", ["raises at import", "calls os._exit"])
def test_without_preload_a_broken_application_stops_a_reload_too(starter: Starter, kind: str) -> None:
    """Each worker loads the application itself; the canary is the first to see."""
    srvd = starter(config=toml('workers = 2\npreload = "off"'))
    before = srvd.names()
    srvd.deploy(apps.BROKEN[kind])
    with pytest.raises(BootFailed) as caught:
        srvd.call("reload")
    assert "worker web/2#3 could not boot" in str(caught.value)
    proof = {"raises at import": "RuntimeError: the deploy is broken", "calls os._exit": "last words"}[kind]
    assert proof in str(caught.value.detail["traceback"])
    assert srvd.names() == before


def test_a_crash_loop_in_the_bake_brings_the_former_generation_back(starter: Starter) -> None:
    """The new code boots and dies shortly after: the former one serves again, by itself."""
    srvd = starter(config=toml("workers = 2"))
    srvd.deploy(apps.good("dying", apps.DIES_SOON.format(seconds=0.3)))
    reload = srvd.ctl("reload", "--bake")
    assert reload.returncode == 1
    assert "dying soon" in reload.stderr
    wait_for(lambda: srvd.pool()["state"] == "ready")
    assert srvd.pool()["generation"] == 1
    assert srvd.get().startswith("one web/1#")
    history = {op["kind"]: op for op in srvd.call("history")["operations"]}
    assert history["reload"]["state"] == "rolled_back"
    assert history["rollback"]["actor"]["name"] == "srvd"
    srvd.wait_logged("is taken back")
    wait_for(lambda: len(srvd.zygotes()) == 1)  # nothing is left of the bad one
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    assert srvd.get().startswith("two web/3#")


def test_one_bad_request_in_the_bake_brings_nothing_back(srvd: Srvd) -> None:
    """One death is repaired; only a crash loop speaks against the deploy."""
    srvd.good("two")
    assert srvd.ctl("reload").returncode == 0
    victim = srvd.kill_worker()
    srvd.wait_serving(2, without=victim)
    assert srvd.pool()["generation"] == 2


def test_the_same_reload_is_joined_as_long_as_it_waits(starter: Starter) -> None:
    """One that runs may have read the former code: "done" would be said of a release that was never loaded."""
    srvd = starter("--workers", "1", code=apps.good("one", apps.HELD))
    (srvd.folder / "held").touch()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(srvd.call, "reload")
        wait_for(lambda: srvd.call("op.list")["operations"])
        srvd.good("two", apps.HELD)  # the first reload may not have read its own yet
        second = pool.submit(srvd.call, "reload")
        wait_for(lambda: len(srvd.call("op.list")["operations"]) == 2)
        same = pool.submit(srvd.call, "reload")
        srvd.wait_logged(" as well")
        other = pool.submit(srvd.call, "reload", bake=False, timeout=50)
        wait_for(lambda: len(srvd.call("op.list")["operations"]) == 3)
        states = {op["id"]: op["state"] for op in srvd.call("op.list")["operations"]}
        assert states == {2: "running", 3: "queued", 4: "queued"}
        (srvd.folder / "held").unlink()
        assert first.result()["operation"]["id"] == 2
        assert second.result()["operation"]["id"] == same.result()["operation"]["id"] == 3
        assert srvd.get().startswith("two ")
        assert other.result()["operation"]["id"] == 4
    assert srvd.pool()["generation"] == 4
    asked = [line.split("operation ")[1].split(" (uid")[0] for line in srvd.logged().splitlines() if "asked by" in line]
    assert asked[1:] == [f"{op}: reload, asked by {USER}" for op in (2, 3, 3, 4)]  # each who asked, and each once


def test_scale_during_a_reload_counts_for_both_generations(starter: Starter) -> None:
    srvd = starter("--workers", "2", code=apps.good("one", apps.HELD))
    (srvd.folder / "held").touch()
    with ThreadPoolExecutor() as pool:
        reload = pool.submit(srvd.call, "reload")
        wait_for(lambda: srvd.call("op.list")["operations"])
        assert srvd.call("scale", size=4)["operation"]["state"] == "done"
        assert len(srvd.serving()) == 4
        assert not reload.done()
        (srvd.folder / "held").unlink()
        assert reload.result()["operation"]["result"]["serving"] == 4
    assert {worker["generation"] for worker in srvd.serving()} == {2}
    assert len(srvd.serving()) == 4


def test_stop_during_a_reload_that_hangs_in_import(srvd: Srvd) -> None:
    srvd.deploy(apps.BROKEN["hangs at import"])
    with ThreadPoolExecutor() as pool:
        reload = pool.submit(srvd.ctl, "reload")
        wait_for(lambda: [op for op in srvd.call("op.list")["operations"] if op["phase"] == "load"])
        began = time.monotonic()
        assert srvd.ctl("stop").returncode == 0
        assert srvd.wait() == 0
        assert time.monotonic() - began < BOOT  # less than boot_timeout, which the load would have
        done = reload.result()
    assert done.returncode == 1
    assert "stopped" in done.stderr


def test_a_disconnect_does_not_cancel_a_reload(starter: Starter) -> None:
    srvd = starter("--workers", "1", code=apps.good("one", apps.SLOW.format(seconds=1)))
    srvd.good("two")
    with srvd.client() as client:
        operation = client.call("reload", {"wait": False})["operation"]
    assert srvd.call("op.wait", id=operation["id"])["operation"]["state"] == "done"
    assert srvd.get().startswith("two ")


@pytest.mark.parametrize("strategy", ["rolling", "blue-green"])
def test_both_strategies_change_over_without_a_loss(starter: Starter, strategy: str) -> None:
    srvd = starter(config=toml(f'workers = 4\nstrategy = "{strategy}"'))
    most = 0
    with srvd.under_load(4) as load:
        srvd.good("two")
        with srvd.client() as client, ThreadPoolExecutor() as pool:
            reload = pool.submit(srvd.call, "reload")
            while not reload.done():
                (shown,) = client.call("status")["pools"]
                most = max(most, shown["serving"] + shown["booting"])
            assert reload.result()["operation"]["state"] == "done"
        load.more()
    assert load.failed == []
    assert "two" in load.releases
    assert srvd.get().startswith("two ")
    assert most <= (5 if strategy == "rolling" else 8)


def holding(microseconds: int) -> str:
    """An application; after GET /hang a thread of it holds the interpreter lock, in pieces of that length."""
    thread = f"def hold():\n    while True:\n        ctypes.PyDLL(None).usleep({microseconds})\n"
    started = "threading.Thread(target=hold, daemon=True).start()\n    if"
    return "import ctypes, threading\n" + thread + apps.good().replace("hang()\n    if", started, 1)


def test_after_a_reload_no_new_client_meets_the_former_release(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1\nbake = 0"), code=holding(100_000))
    srvd.get("/hang")
    for release in ("two", "three", "four"):
        srvd.good(release)
        assert srvd.call("reload")["operation"]["warnings"] == []
        assert [srvd.get().split()[0] for _ in range(8)] == [release] * 8


def test_a_former_worker_that_is_too_busy_to_stop_accepting_is_named(starter: Starter) -> None:
    begins = (
        "import os, time\ndef hold():\n    while not os.path.exists('told'): time.sleep(0.02)\n    os.rmdir('told')\n"
    )
    code = holding(3_600_000_000).replace("def hold():\n", begins)
    srvd = starter(config=toml("workers = 1\nbake = 0\ndrain_timeout = 8"), code=code)
    (former,) = srvd.names()
    srvd.get("/hang")
    (srvd.folder / "told").mkdir()  # only now: while the lock is held, no answer is sent
    wait_for(lambda: not (srvd.folder / "told").exists())
    srvd.good("two")
    operation = srvd.call("reload")["operation"]
    assert operation["state"] == "done"
    assert operation["warnings"] == [f"{former} of the former generation is busy, and may still accept a client"]


def test_a_failed_reload_is_told_with_step_reason_and_traceback(srvd: Srvd) -> None:
    srvd.deploy(apps.BROKEN["raises at import"])
    with pytest.raises(LoadFailed) as caught:
        srvd.call("reload")
    assert caught.value.detail["step"] == "load"
    assert "RuntimeError: the deploy is broken" in str(caught.value.detail["traceback"])
    shown = srvd.operation(2)
    assert shown["state"] == "failed"
    assert [step["phase"] for step in shown["timeline"]] == ["queued", "config", "load", "failed"]
    assert srvd.call("why")["deaths"] == []


def test_a_rollback_to_a_listener_that_rests_is_accepted_on_at_once(starter: Starter) -> None:
    def on(port: int) -> str:
        return f'[listeners.web]\nbind = ["127.0.0.1:{port}"]\n[pools.web]\napp = "app:app"\nworkers = 4\n'

    first, second = free_port(), free_port()
    srvd = starter(config=on(first))
    srvd.configure(on(second))
    assert srvd.ctl("reload").returncode == 0
    before = len(srvd.logged())
    assert srvd.ctl("rollback").returncode == 0
    assert srvd.get().startswith("one ")
    # A worker that finds nobody listening tries again only later.
    assert "accept a connection" not in srvd.logged()[before:]
