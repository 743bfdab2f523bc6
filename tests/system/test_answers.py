"""Claims about answers: no deploy displaces a death, and what was not taken over or needs a look is said."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from srvd.errors import EXIT
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BIN
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

TWO = """
[daemon]
log_format = "json"

[listeners.web]
bind = ["127.0.0.1:0"]

[pools.a]
app = "app:app"
workers = 1

[pools.b]
app = "app:app"
workers = 1
"""


def test_a_crash_is_shown_after_many_deploys_and_departures_only_when_they_are_asked_for(starter: Starter) -> None:
    srvd = starter("--workers", "3")
    victim = srvd.kill_worker()
    wait_for(srvd.deaths)
    for _ in range(3):
        srvd.wait_serving(3)
        assert srvd.ctl("reload").returncode == 0
    wait_for(lambda: len(srvd.deaths()) == 10)  # nine of them left as they were told
    assert [death["worker"] for death in srvd.deaths(all=False)] == [victim]
    shown = srvd.ctl("why").stdout
    assert f"{victim} (pid " in shown
    assert "replaced" not in shown
    assert "was told to leave (replaced)" in srvd.ctl("why", "--all").stdout
    assert srvd.ctl("upgrade").returncode == 0
    assert [death["worker"] for death in srvd.deaths(all=False)] == [victim]


def test_deaths_and_events_are_shown_since_a_time(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    srvd.kill_worker()
    wait_for(srvd.deaths)
    assert "SIGKILL" in srvd.ctl("why", "--since", "1h").stdout
    assert "no worker has died" in srvd.ctl("why", "--since", "1ms").stdout
    assert "ready" in srvd.ctl("events", "--since", "1h").stdout
    assert (
        "ready" in srvd.ctl("events", "--since", time.strftime("%Y-%m-%d", time.localtime(time.time() - 86_400))).stdout
    )
    assert srvd.ctl("events", "--since", "1ms").stdout == ""
    assert "is no time such as 14:00" in srvd.ctl("why", "--since", "noon").stderr


def test_a_zygote_that_dies_has_a_certificate(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    (zygote,) = srvd.zygotes()
    os.kill(zygote.pid, signal.SIGKILL)
    (death,) = wait_for(lambda: [one for one in srvd.deaths(all=False) if one["cause"] == "zygote"])
    assert death["worker"] == "web@1"
    assert "web@1: the zygote died; " in srvd.ctl("why", "web@1").stdout
    wait_for(srvd.is_ready)
    assert "its zygote died; it has been loaded anew (see `srvctl why`)" in srvd.ctl("status").stdout


def test_requests_are_counted_over_the_lives_of_workers(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    for _ in range(6):
        srvd.get("/")
    assert srvd.ctl("recycle").returncode == 0
    wait_for(lambda: srvd.pool()["requests"] == 6)
    assert srvd.ctl("reload").returncode == 0
    wait_for(lambda: len(srvd.deaths()) == 4)
    assert srvd.pool()["requests"] == 6
    assert srvd.ctl("upgrade").returncode == 0
    assert srvd.pool()["requests"] == 6


@needs_root
def test_the_history_names_who_became_root(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    # Not `srvd.ctl`: the variable must be there from the start of the process, since the daemon asks the kernel for it.
    scale = [str(BIN / "srvctl"), "-s", str(srvd.socket), "scale"]
    subprocess.run([*scale, "2"], env=srvd.env | {"SUDO_USER": "nobody"}, check=True, timeout=60)
    logged_in = Path("/proc/self/loginuid").read_text() not in ("0", "4294967295")
    assert logged_in or "root (for nobody)" in srvd.ctl("history").stdout
    subprocess.run([*scale, "1"], env=srvd.env | {"SUDO_USER": "no such user"}, check=True, timeout=60)
    assert "no such user" not in srvd.ctl("history").stdout


def test_a_worker_may_be_named_by_its_pid_and_without_a_number_sign(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    (worker,) = srvd.serving()
    assert worker["id"] in srvd.ctl("dump", str(worker["pid"])).stdout
    assert srvd.ctl("recycle", worker["id"].replace("#", ".")).returncode == 0
    assert worker["id"] not in srvd.names()
    wait_for(lambda: srvd.deaths(worker=worker["id"]))
    assert "as ordered" in srvd.ctl("why", str(worker["pid"])).stdout


def test_the_reason_of_a_crash_names_the_line_not_the_modules_that_are_loaded(starter: Starter) -> None:
    code = "import ctypes\ndef app(environ, start):\n    pass\ndef crash():\n    ctypes.string_at(0)\ncrash()\n"
    config = "[listeners.web]\nbind = ['127.0.0.1:0']\n[pools.web]\napp = 'app:app'\npreload = 'off'\n"
    done = starter.new(code=code, config=config).run()
    assert done.returncode == EXIT.FAILED
    assert "killed by signal 11 (SIGSEGV): “Fatal Python error: Segmentation fault (" in done.stderr


def test_a_reload_says_what_it_could_not_take_over(starter: Starter) -> None:
    srvd = starter(config=TWO)
    srvd.configure(TWO.replace('"json"', '"text"'))
    done = srvd.ctl("reload")
    assert done.returncode == 0
    warning = 'log_format cannot change while the daemon runs: "json" stays in force until the next start'
    assert warning in done.stderr
    assert warning in srvd.ctl("status").stdout
    (line,) = [line for line in srvd.ctl("config").stdout.splitlines() if line.startswith("daemon.log_format")]
    assert '"json"' in line
    assert 'srvd.toml:3 (it says "text", and waits for a start)' in line
    srvd.configure(TWO)
    assert "log_format" not in srvd.ctl("reload").stderr
    assert warning not in srvd.ctl("status").stdout


def test_settings_of_a_pool_that_was_not_reloaded_are_shown_as_they_are_in_force(starter: Starter) -> None:
    srvd = starter(config=TWO)
    changed = TWO.rpartition("workers = 1")
    srvd.configure(f"{changed[0]}workers = 3{changed[2]}")
    assert srvd.ctl("reload", "a").returncode == 0
    (line,) = [line for line in srvd.ctl("config").stdout.splitlines() if line.startswith("pools.b.workers")]
    assert line.split()[1] == "1"
    assert "(it says 3, and waits for a reload of b)" in line
    assert srvd.ctl("reload", "b").returncode == 0
    (line,) = [line for line in srvd.ctl("config").stdout.splitlines() if line.startswith("pools.b.workers")]
    assert line.split()[1] == "3"
    assert "waits" not in line


def test_status_has_what_is_worth_a_look(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    assert "note:" not in srvd.ctl("status").stdout
    assert srvd.ctl("scale", "2").returncode == 0
    assert "web keeps the 2 workers of `srvctl scale`; the file says 1" in srvd.ctl("status").stdout
    srvd.deploy("raise ValueError('boom')")
    assert srvd.ctl("reload").returncode == EXIT.FAILED
    assert "operation 3 (reload) failed: load " in srvd.ctl("status").stdout
    srvd.good()
    done = srvd.ctl("reload")
    assert (done.returncode, done.stderr) == (0, "")
    assert "failed" not in srvd.ctl("status").stdout
    assert srvd.ctl("scale", "0").returncode == 0
    assert "web has no workers: its clients wait" in srvd.ctl("status").stdout


@needs_root
def test_an_access_log_that_cannot_be_written_is_in_the_answer_and_in_status(starter: Starter) -> None:
    srvd = starter.new(config="[listeners.web]\nbind = ['127.0.0.1:0']\n"
                       "[pools.web]\napp = 'app:app'\nuser = 'nobody'\naccess_log = 'access.log'\n")  # fmt: skip
    srvd.let_others_in()
    srvd.start()
    problem = f"web: open the access log {srvd.folder}/access.log: Permission denied ("
    wait_for(lambda: problem in srvd.ctl("status").stdout)
    done = srvd.ctl("reload")
    assert done.returncode == 0
    assert problem in done.stderr
    Path(srvd.folder / "access.log").touch()
    os.chown(srvd.folder / "access.log", 65534, -1)
    assert srvd.ctl("reopen").returncode == 0
    assert "access log" not in srvd.ctl("status").stdout


def test_an_order_that_the_system_refuses_is_a_failure_to_srvctl(starter: Starter) -> None:
    srvd = starter(config=TWO)
    taken = f"127.0.0.1:{srvd.address()[1]}"
    other = starter(config=TWO)
    other.configure(TWO.replace("127.0.0.1:0", taken))
    done = other.ctl("reload")
    assert done.returncode == EXIT.FAILED
    assert "Address already in use" in done.stderr


def test_an_operation_is_followed_to_its_end(starter: Starter) -> None:
    srvd = starter(code=apps.good("one", "import time\ntime.sleep(0.3)\n"))
    op = srvd.order("reload")
    done = srvd.ctl("op", "show", str(op), "--follow")
    assert done.returncode == 0
    assert f"operation {op}: reload: done" in done.stdout
    srvd.deploy("raise ValueError('boom')")
    done = srvd.ctl("op", "show", str(srvd.order("reload")), "--follow")
    assert (done.returncode, "boom" in done.stdout) == (0, True)
