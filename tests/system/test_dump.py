"""`srvctl dump` against real processes: whatever a worker is stuck in, it says where, and goes on afterwards."""

from __future__ import annotations

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from srvd.errors import NoSuchPool, NoSuchWorker
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BOOT, Map, Srvd, toml
from tests.support.waiting import wait_for
from tests.support.worker_rig import Client

pytestmark = pytest.mark.system

STUCK = """
import os, re, threading, time
LOCK, GO = threading.Lock(), []
def watch():
    while not os.path.exists("go"):
        time.sleep(0.01)
    GO.append(True)
def in_sleep():
    while not os.path.exists("go"):
        time.sleep(0.1)
def in_loop():
    threading.Thread(target=watch).start()
    while not GO:
        pass
def in_sum():  # keeps the interpreter's lock, and hears no signal
    return sum(range(120_000_000))
def in_regex():  # keeps it, too
    return re.match("(a+)+b", 26 * "a")
def in_lock():
    with LOCK:
        pass
def app(environ, start_response):
    name = environ["PATH_INFO"][1:]
    if name == "hold":
        LOCK.acquire()
    elif name == "release":
        LOCK.release()
    elif name:
        globals()[name]()
    body = b"done"
    start_response("200 OK", [("Content-Length", "4")])
    return [body]
"""


DEEP = """
import threading, time
def deep(depth, started):
    if depth:
        deep(depth - 1, started)
    else:
        started.release()
        time.sleep(1000)
def app(environ, start_response):
    started = threading.Semaphore(0)
    for _ in range(60):
        threading.Thread(target=deep, args=(95, started), daemon=True).start()
    for _ in range(60):
        started.acquire()
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


def functions(process: dict[str, Any]) -> set[str]:
    return {frame["function"] for thread in process["threads"] for frame in thread["frames"]}


def dump(srvd: Srvd, worker: str = "") -> dict[str, Any]:
    """Of the one process that there is."""
    (process,) = srvd.call("dump", worker=worker)["processes"]
    return dict(process)


@pytest.mark.parametrize("where", ["in_sleep", "in_loop", "in_sum", "in_regex"])
def test_a_worker_says_what_it_is_stuck_in_and_goes_on(starter: Starter, where: str) -> None:
    srvd = starter("--workers", "1", code=STUCK)
    with ThreadPoolExecutor() as pool:
        stuck = pool.submit(srvd.get, f"/{where}")
        wait_for(lambda: srvd.serving()[0]["busy"])
        process = dump(srvd, "web/1#1")
        assert not stuck.done()
        (srvd.folder / "go").touch()
        assert (process["id"], process["kind"], process["state"], process["problem"]) == (
            "web/1#1", "worker", "serving", "")  # fmt: skip
        assert where in functions(process)
        files = {frame["file"] for thread in process["threads"] for frame in thread["frames"]}
        assert not any(file.endswith("linux/processes/stacks.py") for file in files)  # our own handler
        (request,) = process["requests"]
        assert request["line"] == f"GET /{where}"
        assert 0 < request["age_s"] < BOOT
        assert stuck.result() == "done"
    assert srvd.names() == {"web/1#1"}
    assert "in_" not in srvd.logged()  # it was asked for here, and is told here


def test_all_threads_that_wait_for_a_lock_say_so_with_their_requests(starter: Starter) -> None:
    srvd = starter("--workers", "1", "--threads", "8", code=STUCK)
    srvd.get("/hold")
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(srvd.get, "/in_lock") for _ in range(5)]
        wait_for(lambda: srvd.serving()[0]["busy"] == 5)
        process = dump(srvd)
        stuck = [thread for thread in process["threads"] if "in_lock" in functions({"threads": [thread]})]
        assert len(stuck) == 5
        assert len({thread["id"] for thread in stuck}) == 5
        assert [one["line"] for one in process["requests"]] == ["GET /in_lock"] * 5
        assert len({one["lane"] for one in process["requests"]}) == 5
        text = srvd.ctl("dump", "web/1#1").stdout
        assert "5 threads (0x" in text
        assert text.count("in GET /in_lock for ") == 5
        srvd.get("/release")
        assert [one.result() for one in waiting] == ["done"] * 5


def test_a_zygote_that_hangs_at_import_says_where(starter: Starter) -> None:
    srvd = starter.new(code=apps.BROKEN["hangs at import"]).start(ready=False)
    srvd.wait_logged("control socket")

    def hangs() -> bool:
        processes = srvd.call("dump")["processes"]
        return [(one["id"], one["kind"]) for one in processes] == [("web@1", "zygote")] and (
            processes[0]["threads"] and processes[0]["threads"][0]["frames"][0]["line"] == 2
        )

    wait_for(hangs)
    done = srvd.ctl("dump", "web@1")
    assert done.returncode == 0
    assert done.stdout.startswith("zygote web@1: loading, pid ")
    assert "app.py:2 in <module>" in done.stdout
    with pytest.raises(NoSuchWorker, match="no generation"):
        srvd.call("dump", worker="web@2")
    with pytest.raises(NoSuchPool):
        srvd.call("dump", pool="jobs")
    srvd.signal(signal.SIGTERM)
    assert srvd.wait() == 0


def test_a_worker_that_hangs_while_it_boots_says_where(starter: Starter) -> None:
    code = apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1000))
    srvd = starter(config=toml('workers = 1\npreload = "off"'), code=code)
    (srvd.folder / "slow").touch()
    srvd.order("scale", size=2)
    wait_for(lambda: any(worker["state"] == "booting" for worker in srvd.pool()["workers"]))

    def hangs() -> bool:
        return "<module>" in functions(dump(srvd, "web/1#2"))

    wait_for(hangs)
    assert dump(srvd, "web/1#2")["state"] == "booting"
    (zygote,) = srvd.zygotes()
    assert {one["id"] for one in srvd.call("dump")["processes"]} == {"web/1#1", "web/1#2"}
    idle = dump(srvd, "web@1")  # only when it is named
    assert (idle["pid"], idle["state"], "run" in functions(idle)) == (zygote.pid, "up", True)


def test_a_stopped_worker_is_said_to_be_stopped_in_bounded_time(starter: Starter) -> None:
    srvd = starter("--workers", "2", code=STUCK)
    first, second = srvd.serving()

    def look() -> list[Map]:
        """The processes while the first one is stopped; none if the daemon has continued it meanwhile."""
        os.kill(first["pid"], signal.SIGSTOP)
        began = time.monotonic()
        found: list[Map] = srvd.call("dump")["processes"]
        assert time.monotonic() - began < BOOT
        return found if found[0]["process"] == "stopped" else []

    try:
        for _ in range(3):
            stopped, other = wait_for(look)
            assert stopped["threads"] == []
            assert "stopped, by SIGSTOP" in stopped["problem"]
            assert (other["id"], other["problem"], bool(other["threads"])) == (second["id"], "", True)
    finally:
        os.kill(first["pid"], signal.SIGCONT)
    wait_for(lambda: not dump(srvd, first["id"])["problem"])  # what it was asked for three times it writes once
    assert srvd.names() == {first["id"], second["id"]}


@pytest.mark.parametrize("taken", [[6], [7], [6, 7]])
def test_an_application_that_takes_our_signals_for_itself(starter: Starter, taken: list[int]) -> None:
    """One of the two is enough; without both there are no stacks, and it is said why."""
    code = "".join(f"import signal\nsignal.signal(signal.SIGRTMIN + {n}, lambda *_: None)\n" for n in taken) + STUCK
    srvd = starter(config=toml('workers = 1\npreload = "off"'), code=code)
    process = dump(srvd)
    assert bool(process["threads"]) == (len(taken) == 1)
    assert ("another handler" in process["problem"]) == (len(taken) == 2)
    assert srvd.names() == {"web/1#1"}


def test_many_dumps_under_load_lose_no_request(starter: Starter) -> None:
    srvd = starter("--workers", "2", "--threads", "4")
    with srvd.under_load() as load:
        for _ in range(100):
            for process in srvd.call("dump")["processes"]:
                assert process["problem"] == ""
                assert "live" in functions(process)
    assert load.failed == []
    assert load.answered > 100
    assert srvd.names() == {"web/1#1", "web/1#2"}


def test_many_askers_at_once_are_all_answered(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: srvd.call("dump"), range(30)))
    assert all(len(answer["processes"]) == 2 for answer in answers)
    assert all(one["threads"] for answer in answers for one in answer["processes"])


def test_a_long_stack_is_cut_and_the_answer_stays_bounded(starter: Starter) -> None:
    """Sixty threads of a hundred frames with long names."""
    srvd = starter("--workers", "1", code=DEEP.replace("deep", "deep_" * 60))
    srvd.get()
    process = dump(srvd)
    assert "the rest is lost" in process["problem"]
    assert 10 < len(process["threads"]) < 60
    assert dump(srvd)["threads"]  # and the next time, too
    assert srvd.names() == {"web/1#1"}


@pytest.mark.parametrize("size", [0, 1, 600])
def test_a_worker_that_may_write_no_files_is_not_disturbed_either(starter: Starter, size: int) -> None:
    srvd = starter(config=toml(f"workers = 1\nrlimits = {{ fsize = {size} }}"))
    process = dump(srvd)
    assert bool(process["problem"]) != bool(process["threads"])
    assert ("fsize" in process["problem"]) == (size == 0)
    dump(srvd)
    assert srvd.names() == {"web/1#1"}


def test_who_asked_is_logged(srvd: Srvd) -> None:
    srvd.call("dump", worker="web/1#1")
    srvd.wait_logged("dump worker=web/1#1, asked by ")


def test_who_does_not_finish_in_time_leaves_its_stacks_in_the_log_and_in_its_certificate(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\ndrain_timeout = "500ms"'))
    with ThreadPoolExecutor() as pool:
        hung = pool.submit(srvd.get, "/hang")
        wait_for(lambda: srvd.serving()[0]["busy"])
        srvd.call("recycle", worker="web/1#1")
        assert hung.exception(BOOT) is not None
    death = wait_for(lambda: srvd.deaths(worker="web/1#1"))[0]
    assert death["cause"] == "drain_timeout"
    assert "in hang\n" in death["stacks"]
    assert death["stderr"] == ""
    assert "stacks:\n" in srvd.ctl("why", "web/1#1").stdout
    said = [line for line in srvd.logged().splitlines() if line.startswith("web/1#1 | ")]
    assert said[0].startswith("web/1#1 | srvd: in GET /hang for ")
    assert sum("in hang" in line for line in said) == 1


def test_a_worker_that_does_not_boot_in_time_leaves_its_stacks_to_whoever_waits_for_it(starter: Starter) -> None:
    code = apps.good("one", apps.SLOW_IF_TOLD.format(seconds=1000))
    srvd = starter(config=toml('workers = 1\npreload = "off"\nboot_timeout = "2s"\nbake = 0'), code=code)
    (srvd.folder / "slow").touch()
    done = srvd.ctl("reload")
    assert done.returncode == 1
    assert "was not ready within 2 s" in done.stderr
    assert 'app.py", line 2 in <module>' in done.stderr
    (death,) = [death for death in srvd.deaths() if death["cause"] == "boot_timeout"]
    assert 'app.py", line 2 in <module>' in death["stacks"]
    srvd.wait_logged('app.py", line 2 in <module>')
    assert srvd.get().startswith("one web/1#1 ")


TASKS = """
import asyncio

async def inner(seconds):
    await asyncio.sleep(seconds)

async def stream():
    yield b"one"
    await inner(1000)

async def work(number):
    await asyncio.Event().wait()

class App:
    kept = []
    async def __call__(self, scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/many":
            self.kept += [asyncio.create_task(work(n), name=f"job\\n {n}") for n in range(12_000)]
        if scope["path"] == "/view":
            await asyncio.wait_for(inner(1000), 2000)
        if scope["path"] == "/stream":
            async for part in stream():
                pass
        if scope["path"] == "/blocked":
            import time
            time.sleep(1000)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

app = App()
"""


def tasks(process: dict[str, Any]) -> dict[str, list[str]]:
    """The functions of each stack of tasks, the innermost first, by the names of the tasks."""
    return {
        one["name"]: [frame["function"] for frame in one["frames"]]
        for one in process["threads"]
        if one["id"] == "tasks"
    }


def test_a_dump_of_an_asgi_worker_has_what_each_request_waits_for(starter: Starter) -> None:
    srvd = starter("--workers", "1", "--request-timeout", "0", code=TASKS)
    with ExitStack() as stack:
        for path in ("/view", "/view", "/stream"):
            stack.enter_context(Client(srvd.address())).send(
                f"GET {path}?a=secret HTTP/1.1\r\nHost: a\r\n\r\n".encode()
            )
        wait_for(lambda: {"GET /view, GET /view", "GET /stream"} <= set(tasks(dump(srvd))))
        found = tasks(dump(srvd))
        views = found["GET /view, GET /view"]
        assert views[-2:] == ["__call__", "_run"]
        assert "wait_for" in views
        assert found["GET /stream"][-2:] == ["__call__", "_run"]
        text = srvd.ctl("dump").stdout
        assert "task GET /stream, the innermost call first:\n" in text
        assert "secret" not in text
        assert f"{srvd.folder}/app.py:" in text


def test_a_dump_of_ten_thousand_tasks_is_short_and_whole(starter: Starter) -> None:
    srvd = starter("--workers", "1", code=TASKS)
    assert srvd.get("/many") == "ok"

    def told() -> list[str]:
        process = dump(srvd)
        assert process["problem"] == ""
        return [name for name, functions in tasks(process).items() if functions == ["wait", "work"]]

    wait_for(lambda: any(re.fullmatch(r"job \d.*, and \d{4} more with this stack", name) for name in told()))
    assert srvd.get("/") == "ok"


def test_the_tasks_of_a_worker_that_is_blocked_are_told_in_its_certificate(starter: Starter) -> None:
    srvd = starter("--workers", "1", "--request-timeout", "2s", code=TASKS)
    with ExitStack() as stack:
        for path in ("/view", "/blocked"):
            stack.enter_context(Client(srvd.address())).send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        wait_for(lambda: "task GET /view" in srvd.ctl("why", "web/1#1").stdout, 30)
        told = srvd.ctl("why", "web/1#1").stdout
    assert re.search(r"app.py:\d+ in __call__", told), told
    assert re.search(r"task GET /blocked, the innermost call first:\n *<it runs: ", told), told  # the one to blame
