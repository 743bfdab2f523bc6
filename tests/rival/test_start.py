"""Rows of the rival's table: what daemon mode answers. Docstrings quote the row: scenario – gunicorn 27.0.1 as seen.

Other ways to start are in system/test_start.py.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import toml
from tests.support.users import own_name
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system


@pytest.mark.parametrize("kind", list(apps.BROKEN))
def test_daemon_mode_with_a_broken_app(starter: Starter, kind: str) -> None:
    """Daemon mode with a broken app – exit 0, no server."""
    srvd = starter.new(config=toml('boot_timeout = "2s"'), code=apps.BROKEN[kind])
    done = srvd.daemonize()
    assert done.returncode == 1
    assert apps.REASON[kind] in done.stderr
    assert apps.PROOF[kind] in done.stderr
    assert done.stderr.count("\nerror: ") == 1
    assert "never came up" not in done.stderr  # the same in the log's words
    assert not srvd.socket.exists()


def test_daemon_mode_returns_when_the_pools_serve(starter: Starter) -> None:
    """Daemon mode – the rival's command returns before anything serves."""
    srvd = starter.new("--workers", "3", code=apps.good("one", apps.SLOW.format(seconds=1)))
    done = srvd.daemonize()
    assert done.returncode == 0, done.stderr
    assert len(srvd.serving()) == 3
    assert srvd.get().startswith("one ")
    daemon = psutil.Process(srvd.pid)
    assert os.getsid(daemon.pid) not in (os.getsid(0), daemon.pid)  # in the background, and no leader of a session
    assert daemon.terminal() is None


def test_daemon_mode_with_a_busy_port(starter: Starter) -> None:
    """The rival goes into the background first and fails there, seen by nobody."""
    first = starter()
    host, port = first.address()
    second = starter.new("--bind", f"{host}:{port}")
    done = second.daemonize()
    assert done.returncode == 71
    assert done.stderr.count("Address already in use") == 1
    assert "error: listen on" in done.stderr
    assert f"pid {first.pid} (srvd: daemon srvd, user {own_name('{uid}')}) has it" in done.stderr
    assert not second.socket.exists()


def test_daemon_mode_closes_the_output_of_who_started_it(starter: Starter) -> None:
    """`out=$(srvd start --daemonize …)` returns: the daemon does not keep the pipe open, as a leaked one would."""
    srvd = starter.new()
    done = srvd.daemonize(timeout=20)  # reads both pipes to their ends
    assert done.returncode == 0
    assert os.readlink(f"/proc/{srvd.pid}/fd/2") == "/dev/null"


def test_daemon_mode_says_that_it_was_stopped_before_it_was_ready(starter: Starter) -> None:
    srvd = starter.new(code=apps.BROKEN["hangs at import"])
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(srvd.daemonize)
        wait_for(srvd.listens)
        srvd.call("stop")
        done = asked.result(30)
    assert done.returncode == 1
    assert "error: the daemon was asked to stop before it was ready" in done.stderr


ONLY_ONE = """
import os, time
try:
    os.open("lock", os.O_CREAT | os.O_EXCL)
except FileExistsError:
    time.sleep(0.5)  # until the other one is ready: if one fails before any is, the whole start does
    raise
"""


def test_daemon_mode_returns_when_only_some_of_the_workers_come_up(starter: Starter) -> None:
    config = toml('workers = 2\nboot_timeout = "1s"\npreload = "off"')
    srvd = starter.new(config=config, code=apps.good("one", ONLY_ONE))
    done = srvd.daemonize()
    srvd.daemonized = int(srvd.status()["daemon"]["pid"])
    assert done.returncode == 10
    assert "error: committed, but not all workers serve" in done.stderr
    assert "the daemon runs on" in done.stderr
    assert srvd.get().startswith("one ")


def test_a_start_that_fails_in_the_background_is_in_the_log_file_too(starter: Starter) -> None:
    first = starter()
    host, port = first.address()
    second = starter.new("--bind", f"{host}:{port}", "--log-file", "srvd.log")
    done = second.daemonize()
    assert done.stderr.count("Address already in use") == 1
    assert (second.folder / "srvd.log").read_text().count("Address already in use") == 1
