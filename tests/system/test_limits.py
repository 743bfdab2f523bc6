"""max_rss, rlimits, nice and oom_score_adj of real processes, as the application and the kernel see them."""

from __future__ import annotations

import ast
import os
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from srvd.linux.processes import limits
from tests.conftest import Starter
from tests.support.daemon import BOOT, Srvd, toml
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

ROOT = os.geteuid() == 0

GROWING = """
import os
KEPT = []
def app(environ, start_response):
    if sum(map(len, KEPT)) < 64 << 20:
        KEPT.append(os.urandom(1 << 20))
    body = ("one " + environ["srvd.worker"] + " " + str(os.getpid())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
"""Takes a mebibyte more with each request, up to 64."""

TELLS = """
import os
try:
    from resource import *
except ImportError:  # the user of the pool may not see our interpreter's modules
    getrlimit = None
def app(environ, start_response):
    facts = {
        "limits": open("/proc/self/limits").read(),
        "nofile": getrlimit and getrlimit(RLIMIT_NOFILE),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "oom": int(open("/proc/self/oom_score_adj").read()),
        "uid": os.getuid(),
    }
    body = repr(facts).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def tell(srvd: Srvd) -> dict[str, Any]:
    return dict(ast.literal_eval(srvd.get()))


def limit(facts: dict[str, Any], name: str) -> list[str]:
    """Soft and hard, as /proc has them."""
    (line,) = [line for line in facts["limits"].splitlines() if line.startswith(name)]
    return list(line.removeprefix(name).split()[:2])


def may_be_saved() -> bool:
    """Whether the machine lets us save ourselves from the OOM killer: root may not in every container."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if limits.set_oom_score(-300) else 1)
    return os.waitpid(pid, 0)[1] == 0


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_workers_over_max_rss_are_replaced_under_load_and_a_limit_that_is_too_small_is_said_once(
    starter: Starter,
) -> None:
    srvd = starter(config=toml('workers = 2\nmax_rss = "40MiB"'), code=GROWING)
    with srvd.under_load(4) as load:
        wait_for(lambda: len(srvd.deaths()) >= 2, within=60)
        srvd.wait_logged("replacing does not help", within=60)  # the new ones grow as fast
        gone = len(srvd.deaths())
        assert stays(lambda: len(srvd.deaths()) == gone, 7)  # another look has passed
    assert load.failed == []
    assert gone == 2
    deaths = srvd.deaths()
    assert {death["cause"] for death in deaths} == {"recycled"}
    assert all(death["summary"].startswith("was replaced, was over max_rss: ") for death in deaths)
    assert all(death["summary"].endswith(" MiB of 40 MiB; exited with code 0") for death in deaths)
    assert srvd.logged().count("replacing does not help") == 1
    assert srvd.pool()["trouble"].startswith("max_rss is too small: a new worker has ")
    assert srvd.pool()["state"] == "ready"
    events = [event for event in _events(srvd) if "is over max_rss: " in event["data"].get("text", "")]
    assert [event["topic"] for event in events] == ["worker", "worker", "pool"]


def _events(srvd: Srvd) -> list[dict[str, Any]]:
    with srvd.client() as client:
        return list(client.watch(follow=False))


def test_a_limit_that_a_reload_brings_is_kept_from_then_on(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 1"), code=GROWING)
    for _ in range(64):
        srvd.get()
    assert stays(lambda: not srvd.deaths(), 6)
    srvd.configure(toml('workers = 1\nmax_rss = "40MiB"'))
    assert srvd.ctl("reload").returncode == 0
    for _ in range(64):
        srvd.get()
    wait_for(lambda: any("max_rss" in death["summary"] for death in srvd.deaths()), within=30)
    srvd.configure(toml("workers = 1"))
    assert srvd.ctl("reload").returncode == 0
    for _ in range(64):
        srvd.get()
    before = len(srvd.deaths(pool="web", limit=100))
    assert stays(lambda: len(srvd.deaths(limit=100)) == before, 6)


@pytest.mark.parametrize("user", ["", pytest.param("daemon", marks=pytest.mark.skipif(not ROOT, reason="needs root"))])
def test_an_application_has_the_limits_of_its_pool(starter: Starter, user: str) -> None:
    wanted = 'rlimits = { nofile = [256, 512], core = 0, stack = ["4MiB", "8MiB"], nproc = 4000 }'
    who = f'user = "{user}"' if user else ""
    srvd = starter.new(config=toml(f"workers = 1\n{wanted}\nnice = 5\noom_score_adj = 700\n{who}"), code=TELLS)
    srvd.let_others_in()
    srvd.start()
    facts = tell(srvd)
    assert limit(facts, "Max open files") == ["256", "512"]
    assert limit(facts, "Max core file size") == ["0", "0"]
    assert limit(facts, "Max stack size") == [str(4 << 20), str(8 << 20)]
    assert limit(facts, "Max processes") == ["4000", "4000"]
    assert facts["nofile"] == (256, 512) or (user and facts["nofile"] is None)
    assert facts["nice"] == os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert facts["oom"] == 700
    assert (facts["uid"] != 0) == (user != "" or not ROOT)
    (zygote,) = srvd.zygotes()
    assert oom_score(zygote.pid) == 100
    assert zygote.nice() == psutil.Process(srvd.pid).nice() + 5
    assert oom_score(srvd.pid) == oom_score(os.getpid())
    shown = srvd.ctl("config").stdout
    assert "{ nofile = [256, 512]" in shown


def test_an_application_that_is_not_preloaded_has_them_once(starter: Starter) -> None:
    """The zygote that begins anew is as nice as before, not twice."""
    threads = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    srvd = starter(config=toml("workers = 1\nnice = 4\nrlimits = { nofile = [300, 400] }"), code=threads + TELLS)
    srvd.wait_logged("each worker loads the application itself")
    facts = tell(srvd)
    assert facts["nofile"] == (300, 400)
    assert facts["nice"] == os.getpriority(os.PRIO_PROCESS, 0) + 4


@pytest.mark.skipif(not may_be_saved(), reason="takes CAP_SYS_RESOURCE")
def test_a_pool_can_be_kept_from_the_oom_killer_and_its_zygote_with_it(starter: Starter) -> None:
    who = 'user = "daemon"' if ROOT else ""
    srvd = starter.new(config=toml(f"workers = 1\noom_score_adj = -300\n{who}"), code=TELLS)
    srvd.let_others_in()
    srvd.start()
    assert tell(srvd)["oom"] == -300
    (zygote,) = srvd.zygotes()
    assert oom_score(zygote.pid) == -300


@pytest.mark.skipif(may_be_saved(), reason="CAP_SYS_RESOURCE lets us")
def test_a_score_that_may_not_be_set_is_told(starter: Starter) -> None:
    done = starter.new(config=toml("workers = 1\noom_score_adj = -300")).run()
    assert done.returncode == 1
    assert "set oom_score_adj to -300: " in done.stderr


def test_a_limit_that_cannot_be_set_is_told_and_changes_nothing(starter: Starter) -> None:
    """More open files than the kernel gives to anybody."""
    impossible = toml(f"workers = 1\nrlimits = {{ nofile = {1 << 40} }}")
    done = starter.new(config=impossible).run()
    assert done.returncode == 1
    assert f"set the limit nofile to {1 << 40}: " in done.stderr
    assert "the hard limit is " in done.stderr
    srvd = starter(config=toml("workers = 1"))
    srvd.configure(impossible)
    reload = srvd.ctl("reload")
    assert reload.returncode == 1
    assert "correct `rlimits`" in reload.stderr
    assert srvd.get().startswith("one web/1#1 ")


def test_limits_that_the_zygote_cannot_live_with_are_told(starter: Starter) -> None:
    done = starter.new(config=toml("workers = 1\nrlimits = { nofile = 6 }")).run()
    assert done.returncode == 1
    assert "the process ended while it was loaded: OSError: [Errno 24] Too many open files" in done.stderr
    assert "hint: see `rlimits` of the pool" in done.stderr


def test_a_limit_that_does_not_exist_is_refused_by_name(starter: Starter) -> None:
    done = starter.new(config=toml("rlimits = { nofiles = 1024 }")).run()
    assert done.returncode == 78
    assert 'did you mean "nofile"?' in done.stderr


READS = """
def app(environ, start_response):
    size = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(len(str(size))))])
    return [str(size).encode()]
"""


@pytest.mark.parametrize("streams", [False, True], ids=["kept", "streamed"])
def test_a_slow_upload_counts_for_request_timeout_only_when_bodies_are_streamed(
    starter: Starter, streams: bool
) -> None:
    settings = f'workers = 1\nrequest_timeout = "1s"\nstream_bodies = {str(streams).lower()}'
    srvd = starter(config=toml(settings), code=READS)
    left = 1 << 20
    with socket.create_connection(srvd.address(), timeout=BOOT) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % left)
        if streams:
            wait_for(lambda: client.send(b"x") and "in POST / for " in srvd.logged(), BOOT)
            assert wait_for(srvd.deaths, BOOT)[0]["cause"] == "request_timeout"
            return
        began = time.monotonic()
        while time.monotonic() < began + 2.5:
            left -= client.send(b"x")
            assert stays(lambda: not srvd.serving()[0]["busy"], 0.05)
        client.sendall(b"x" * left)
        assert client.recv(4096).endswith(b"%d" % (1 << 20))
    assert srvd.deaths() == []
