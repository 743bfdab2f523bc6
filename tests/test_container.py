"""Claims about srvd as the first process of a container: PID 1 of its own process namespace, on a read-only root.

What `docker run --read-only --tmpfs /run --tmpfs /tmp` does is done here with unshare(1); it wants root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from srvd.errors import EXIT
from tests import apps
from tests.conftest import Starter
from tests.daemon import BIN, Srvd, toml
from tests.support import wait_for

pytestmark = pytest.mark.system

ENTER = ("unshare", "--fork", "--pid", "--kill-child", "--mount", "--mount-proc", "--propagation=private")
INSIDE = """
mount -t tmpfs tmpfs /run && mkdir /run/srvd && mount -o remount,bind,ro / || exit 99
cd "$PWD" && exec "$@"
"""

LEAVES_ORPHANS = apps.good(before=apps.CRASH_IF_TOLD) + (
    """
plain = app
def app(environ, start_response):
    if environ["PATH_INFO"] == "/orphan":
        if os.fork() == 0:
            os.fork() or time.sleep(0.2)
            os._exit(0)
        os.wait()
    if environ["PATH_INFO"] == "/write":
        open("/written", "w")
    return plain(environ, start_response)
"""
)


class Contained(Srvd):
    """A daemon whose first process is another one than the test has started."""

    @property
    def pid(self) -> int:
        """As it is seen from outside."""
        assert self.process is not None
        (first,) = wait_for(lambda: psutil.Process(self.process.pid).children() if self.process else [])
        return int(first.pid)

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """What `docker exec` does."""
        enter = ["nsenter", "-t", str(self.pid), "--mount", "--pid", "--root"]
        return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=60, env=self.env)

    def kill_workers(self) -> None:
        """All that serve; their pids are those of the inside."""
        pids = [str(worker["pid"]) for worker in self.serving()]
        assert self.inside("sh", "-c", f"kill -KILL {' '.join(pids)}").returncode == 0


def _why_not() -> str:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        return "needs root, unshare and nsenter"
    done = subprocess.run([*ENTER, "sh", "-c", INSIDE, "sh", "true"], capture_output=True, text=True, timeout=30)
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture
def contained(starter: Starter, tmp_path: Path) -> Iterator[Contained]:
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "contained"
    folder.mkdir()
    srvd = Contained(folder, config=toml("workers = 2"))
    srvd.deploy(LEAVES_ORPHANS)
    srvd.command = [*ENTER, "sh", "-c", INSIDE, "sh", str(BIN / "srvd"), "start", "-c", str(folder / "srvd.toml")]
    starter.all.append(srvd)
    srvd.start(ready=False)
    srvd.socket = Path(f"/proc/{srvd.pid}/root/run/srvd/srvd.sock")
    wait_for(srvd.is_ready, within=30)
    yield srvd
    if srvd.process is not None:
        os.kill(srvd.pid, signal.SIGTERM)
        assert srvd.wait() == 0


def test_it_serves_as_pid_1_on_a_read_only_root(contained: Contained) -> None:
    assert contained.status()["daemon"]["pid"] == 1
    assert contained.get().startswith("one ")
    with closing(contained.connect()) as client:
        client.request("GET", "/write")
        assert client.getresponse().status == 500
    assert "Read-only file system" in contained.logged()
    assert contained.ctl("reload").returncode == 0
    before = contained.names()
    contained.kill_workers()
    wait_for(lambda: len(contained.names() - before) == 2)


def test_sigterm_answers_what_was_accepted(contained: Contained) -> None:
    """The kernel drops signals for PID 1 that it has no handler for."""
    with closing(contained.connect()) as client:
        client.request("GET", "/sleep/1")
        wait_for(lambda: any(worker["busy"] for worker in contained.serving()))
        os.kill(contained.pid, signal.SIGTERM)
        assert client.getresponse().status == 200
    assert contained.wait() == 0


def test_what_loses_its_parent_is_reaped(contained: Contained) -> None:
    before = len(contained.family())
    for _ in range(5):
        assert contained.get("/orphan").startswith("one ")
    wait_for(lambda: len(contained.family()) == before)
    assert {process.status() for process in contained.family()} <= {psutil.STATUS_SLEEPING, psutil.STATUS_RUNNING}


def test_the_health_check_tells_ready_from_not_ready(contained: Contained) -> None:
    srvctl = str(BIN / "srvctl")
    assert contained.inside(srvctl, "status").returncode == EXIT.DONE
    (contained.folder / "crash").touch()
    contained.kill_workers()
    assert contained.inside(srvctl, "status").returncode == EXIT.NOT_READY
    (contained.folder / "crash").unlink()
    assert contained.ctl("reload").returncode == 0
    assert contained.inside(srvctl, "status").returncode == EXIT.DONE
