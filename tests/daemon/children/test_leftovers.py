"""Claims about processes that an application started and did not end."""

from __future__ import annotations

import psutil
import pytest

from tests.conftest import Starter
from tests.support.daemon import BOOT, Srvd, is_alive, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

CODE = """
import multiprocessing, os, subprocess, sys, time

def app(environ, start_response):
    path, text = environ["PATH_INFO"], "one %s 0" % environ["srvd.worker"]
    if path == "/program":
        text = str(subprocess.Popen(["sleep", "777"]).pid)
    elif path == "/session":
        text = str(subprocess.Popen(["sleep", "777"], start_new_session=True).pid)
    elif path == "/deaf":
        show = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(777)"
        child = subprocess.Popen([sys.executable, "-c", show], stdout=subprocess.PIPE)
        child.stdout.readline()
        text = str(child.pid)
    elif path == "/fork":
        pid = os.fork()
        if pid == 0:
            time.sleep(777)
            os._exit(0)
        text = str(pid)
    body = text.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


OWN = """
def app(environ, start_response):
    body = b"%d" % helper.pid
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


def _start(starter: Starter, more: str = "", code: str = CODE) -> Srvd:
    return starter(config=toml(f'workers = 1\nrollback_window = "0s"\nbake = "0s"\n{more}'), code=code)


@pytest.mark.parametrize("path", ["/program", "/session", "/fork"])
def test_what_a_worker_leaves_is_named_at_its_end_and_ended_at_a_stop(starter: Starter, path: str) -> None:
    """Not at a recycle or reload: it may be at work. One with a session of its own is found as well."""
    srvd = _start(starter)
    (worker,) = srvd.serving()
    left = psutil.Process(int(srvd.get(path)))
    what = "a fork of worker web/1#1" if path == "/fork" else "sleep 777"
    assert srvd.ctl("recycle").returncode == 0
    srvd.wait_logged(f"worker {worker['id']} left 1 process behind: {what} (pid {left.pid}); a stop of srvd ends them")
    assert is_alive(left)
    (death,) = srvd.call("why", worker=worker["id"])["deaths"]
    assert death["left_behind"] == [f"{what} (pid {left.pid})"]
    assert f"{what} (pid {left.pid})" in srvd.ctl("why", worker["id"]).stdout
    assert srvd.stop() == 0
    assert not is_alive(left)
    srvd.wait_logged(f"ending {what} (pid {left.pid}), which was left behind")
    assert srvd.logged().count(f"(pid {left.pid})") == 2


def test_one_that_ignores_sigterm_is_killed_at_a_stop(starter: Starter) -> None:
    srvd = _start(starter)
    left = psutil.Process(int(srvd.get("/deaf")))
    assert srvd.stop() == 0
    assert not is_alive(left)


def test_a_worker_that_is_killed_takes_its_group_along(starter: Starter) -> None:
    """Nothing is said of what was killed with it."""
    srvd = _start(starter)
    left = psutil.Process(int(srvd.get("/program")))
    assert srvd.ctl("stop", "--now").returncode == 0
    srvd.wait()
    assert not is_alive(left)


def test_what_loading_started_is_named_when_its_zygote_ends(starter: Starter) -> None:
    helper = "import subprocess\nhelper = subprocess.Popen(['sleep', '778'])\n"
    srvd = _start(starter, code=helper + CODE)
    assert srvd.pool()["preloaded"]
    srvd.wait_logged("loading app:app started 1 process: sleep 778 (pid ")
    (left,) = (one for one in srvd.family() if one.name() == "sleep")
    srvd.deploy(CODE)
    assert srvd.ctl("reload").returncode == 0
    srvd.wait_logged(f"the zygote of web@1 left 1 process behind: sleep 778 (pid {left.pid})")
    assert is_alive(left)
    assert srvd.stop() == 0
    assert not is_alive(left)


def test_processes_of_a_load_that_is_thrown_away_are_ended(starter: Starter) -> None:
    """Each worker loads the application again, and starts its own."""
    code = (
        "import subprocess, threading\nhelper = subprocess.Popen(['sleep', '778'])\n"
        "threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()\n"
    )
    srvd = starter(config=toml("workers = 1"), code=code + OWN)
    srvd.wait_logged("left 1 thread (poller) behind")
    own = int(srvd.get())
    wait_for(lambda: [one.pid for one in srvd.family() if one.name() == "sleep" and is_alive(one)] == [own], BOOT)


def test_a_fork_that_loading_leaves_is_named_as_one(starter: Starter) -> None:
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(777)\n    os._exit(0)\n"
    srvd = starter(config=toml(), code=code + CODE)
    srvd.wait_logged("loading app:app started 1 process: a fork of the zygote (pid ")
