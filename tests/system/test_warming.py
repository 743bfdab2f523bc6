"""Modules that an application imports late: learned by the zygote, left to each worker, or of another release."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.daemon import BIN, BOOT, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

APP = """
import os, sys
def app(environ, start_response):
    path, had = environ["PATH_INFO"], "late" in sys.modules
    if path == "/late":
        global BUSY
        BUSY = True
        import late
        BUSY = False
    status = "404 Not Found" if path == "/missing" else "200 OK"
    by = getattr(sys.modules.get("late"), "PID", 0)
    start_response(status, [("Content-Type", "text/plain")])
    return [f"{environ['srvd.worker']} {os.getpid()} {by} {had}".encode()]
BUSY = False
"""
"""Answers with the worker, its pid, the pid of the process that imported `late`, and whether that was before."""

LATE = "import os, sys\nPID = os.getpid()\n"
IN_A_REQUEST = LATE + "if not sys.modules['app'].BUSY:\n    raise RuntimeError('no request')\n"
THREAD = (
    LATE + "import threading\nthreading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
)


def _start(starter: Starter, pool: str, late: str = LATE) -> Srvd:
    srvd = starter.new(config=toml(f"workers = 3\n{pool}"), code=APP)
    srvd.deploy(late, "late")
    return srvd.start()


def _importers(srvd: Srvd) -> dict[int, int]:
    """Of each worker's pid: of the process that imported `late`, which was before it was ready."""
    found: dict[int, int] = {}

    def ask() -> bool:
        _, pid, by, had = srvd.get().split()
        assert had == "True", f"{pid} was ready without it"
        found[int(pid)] = int(by)
        return found.keys() == {worker["pid"] for worker in srvd.serving()}

    wait_for(ask, within=BOOT)
    return found


@pytest.mark.parametrize("pool", ['health = "/late"', 'warm = ["/late"]', 'warm = ["/late"]\npreload = "on"'])
def test_the_zygote_imports_what_its_canary_imported_before_it_forks_the_others(starter: Starter, pool: str) -> None:
    srvd = _start(starter, pool)
    (zygote,) = srvd.zygotes()
    importers = _importers(srvd)
    assert sorted(pid == by for pid, by in importers.items()) == [False, False, True]  # the canary had it by itself
    assert {by for pid, by in importers.items() if pid != by} == {zygote.pid}
    victim = srvd.kill_worker(next(one["id"] for one in srvd.serving() if importers[one["pid"]] == one["pid"]))
    srvd.wait_serving(3, without=victim)
    assert set(_importers(srvd).values()) == {zygote.pid}
    assert srvd.ctl("reload").returncode == 0
    assert len(set(_importers(srvd).values())) == 2


def test_a_path_that_is_warmed_is_not_judged_and_a_problem_is_in_the_log(starter: Starter) -> None:
    srvd = _start(starter, 'warm = ["/missing", "/late"]')
    srvd.wait_logged("warming: GET /missing: 404 Not Found")
    assert len(set(_importers(srvd).values())) == 2


def test_what_cannot_be_imported_outside_of_a_request_is_named_and_each_worker_is_asked_first(starter: Starter) -> None:
    srvd = _start(starter, 'health = "/late"', IN_A_REQUEST)
    text = "web@1: not to be imported outside of a request, and left to each worker: late (RuntimeError: no request)"
    assert srvd.logged().count(text) == 1
    assert all(pid == by for pid, by in _importers(srvd).items())
    assert srvd.pool()["preloaded"]
    command = [str(BIN / "srvd"), "check", "-c", str(srvd.folder / "srvd.toml")]
    done = subprocess.run(command, cwd=srvd.folder, capture_output=True, text=True, timeout=BOOT)
    assert text.removeprefix("web@1: ") in done.stdout + done.stderr


def test_a_late_module_that_starts_a_thread_is_left_to_each_worker(starter: Starter) -> None:
    srvd = _start(starter, 'health = "/late"', THREAD)
    left = "left 1 thread (poller) behind, which would not survive a fork"
    srvd.wait_logged(f"web@1: importing late {left}: each worker imports that by itself")
    assert all(pid == by for pid, by in _importers(srvd).items())


def test_a_late_module_whose_threads_cope_with_a_fork_is_learned(starter: Starter) -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    computed = f"import sys\nsys.path.append({str(Path(numpy.__file__).parent.parent)!r})\nimport numpy\n"
    computed += "ONES = numpy.ones((300, 300))\nONES.dot(ONES)\n"
    srvd = _start(starter, 'health = "/late"', LATE + computed)
    (zygote,) = srvd.zygotes()
    assert {by for pid, by in _importers(srvd).items() if pid != by} == {zygote.pid}
    assert "left to each worker" not in srvd.logged()
    assert "each worker imports" not in srvd.logged()


@pytest.mark.parametrize("asked", ['health = "/late"', 'warm = ["/late"]'])
def test_a_pool_that_is_not_preloaded_asks_each_worker_before_it_is_ready(starter: Starter, asked: str) -> None:
    srvd = _start(starter, f'preload = "off"\n{asked}')
    assert all(pid == by for pid, by in _importers(srvd).items())


def test_a_late_module_that_ends_its_process_or_hangs_costs_the_zygote_nothing(starter: Starter) -> None:
    """Outside of a request: within one it is the canary that does not get on, and the release is not taken."""
    leaves = "import os\n" + IN_A_REQUEST.replace("raise RuntimeError('no request')", "os._exit(3)")
    srvd = _start(starter, 'warm = ["/late"]', leaves)
    srvd.wait_logged("importing late ended the process that tried it: each worker imports that by itself")
    hangs = "import time\n" + IN_A_REQUEST.replace("raise RuntimeError('no request')", "time.sleep(3600)")
    srvd.configure(toml('workers = 3\nwarm = ["/late"]\nboot_timeout = "12s"'))
    srvd.deploy(hangs, "late")
    assert srvd.ctl("reload").returncode == 0
    srvd.wait_logged("was not done in time: each worker imports that by itself")
    assert all(pid == by for pid, by in _importers(srvd).items())


def test_a_path_that_is_warmed_and_hangs_ends_the_reload_with_its_stacks(starter: Starter) -> None:
    srvd = _start(starter, 'warm = ["/late"]')
    srvd.configure(toml('workers = 3\nwarm = ["/late"]\nboot_timeout = "6s"'))
    srvd.deploy("import time\ntime.sleep(3600)\n", "late")
    done = srvd.ctl("reload")
    assert done.returncode == 1
    assert "not warm within 6 s" in done.stderr
    assert "late.py" in done.stderr
    assert "(step: warm)" in done.stderr
    assert srvd.pool()["generation"] == 1
    srvd.wait_serving(3)


@pytest.mark.parametrize("preload", ["auto", "off"])
def test_a_worker_that_imports_a_file_of_another_release_says_so_once(starter: Starter, preload: str) -> None:
    srvd = _start(starter, f'preload = "{preload}"')
    srvd.deploy(LATE + "# of the next release\n", "late")
    for _ in range(10):
        srvd.get("/late")
    text = "web@1 now has code of two releases: late.py"
    srvd.wait_logged(text)
    assert srvd.pool()["mixed"] == "late.py"
    assert f"note: {text}" in srvd.ctl("status").stdout
    assert text in srvd.ctl("why").stdout
    assert srvd.ctl_json("why")["notices"] == [{"text": f"{text} (`srvctl reload` loads all of one)", "at": None}]
    assert srvd.logged().count(text) == 1
    assert srvd.ctl("reload").returncode == 0
    assert srvd.pool()["mixed"] == ""
    assert "code of two releases" not in srvd.ctl("why").stdout


def test_a_file_that_was_there_before_the_load_is_of_the_same_release(starter: Starter) -> None:
    srvd = _start(starter, "")
    for _ in range(10):
        srvd.get("/late")
    srvd.deploy("# not imported any more\n", "late")
    assert all(srvd.get("/late") for _ in range(10))
    assert srvd.pool()["mixed"] == ""


def test_a_file_that_is_written_while_the_zygote_loads_is_of_another_release(starter: Starter) -> None:
    srvd = starter.new(config=toml(), code=f"open('late.py', 'w').write({LATE!r})\nimport late\n{APP}")
    srvd.start()
    srvd.wait_logged("web@1 now has code of two releases: late.py")


FLASK = """
from flask import Flask
from werkzeug.utils import cached_property, import_string
class LazyView:  # as the documentation of Flask has it
    def __init__(self, name):
        self.__module__, self.__name__ = name.rsplit(".", 1)
        self.name = name
    @cached_property
    def view(self):
        return import_string(self.name)
    def __call__(self, *args, **kwargs):
        return self.view(*args, **kwargs)
def create_app():
    app = Flask("shop")
    app.add_url_rule("/", "index", view_func=LazyView("pages.index"))
    app.add_url_rule("/api", "api", view_func=LazyView("api.index"))
    return app
"""
VIEW = """
import os
from flask import request
PID = os.getpid()
def index():
    return f"{request.environ['srvd.worker']} {os.getpid()} {PID}"
"""


def test_views_that_flask_loads_when_they_are_first_asked_for_are_learned(starter: Starter) -> None:
    config = toml('workers = 3\nhealth = "/"\nwarm = ["/api"]').replace('"app:app"', '"app:create_app()"')
    srvd = starter.new(config=config, code=FLASK)
    srvd.deploy(VIEW, "pages")
    srvd.deploy(VIEW, "api")
    srvd.start()
    (zygote,) = srvd.zygotes()
    srvd.deploy("def broken(:", "api")
    assert srvd.ctl("recycle").returncode == 0
    for path in ("/", "/api") * 10:
        assert int(srvd.get(path).split()[2]) == zygote.pid
