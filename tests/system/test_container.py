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
from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import BIN, Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

ENTER = ("unshare", "--fork", "--pid", "--kill-child", "--mount", "--mount-proc", "--propagation=private")
INSIDE = """
mount -t tmpfs tmpfs /run && mkdir /run/srvd && mount -o remount,bind,ro / || exit 99
cd "$PWD" && exec "$@"
"""

ORDINARY = ("setpriv", "--reuid=4242", "--regid=4242", "--clear-groups")

AS_ON_THE_PAGE = """
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs /var/tmp || exit 99
mount -t tmpfs tmpfs /run && mkdir /run/srvd || exit 99
mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs /run/srvd && mount -o remount,bind,ro / || exit 99
cd "$PWD" && exec setpriv --reuid=4242 --regid=4242 --clear-groups $CAPABILITIES "$@"
"""
"""What docs/howto/docker.md does: an ordinary user, tmpfs with Docker's options. The machine's /tmp has the test in it,
so /var/tmp stands for it. The interpreter may be in a folder of root's: the one capability is to get in there.
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
    yield from _contained(starter, tmp_path, INSIDE)


@pytest.fixture
def paged(starter: Starter, tmp_path: Path) -> Iterator[Contained]:
    """As the page for Docker says."""
    if not _why_not() and subprocess.run([*ORDINARY, "test", "-r", str(BIN / "srvctl")], check=False).returncode:
        pytest.skip(f"an ordinary user cannot read {BIN}")
    yield from _contained(starter, tmp_path, AS_ON_THE_PAGE)


def _contained(starter: Starter, tmp_path: Path, inside: str, code: str = LEAVES_ORPHANS) -> Iterator[Contained]:
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "contained"
    folder.mkdir()
    variables = {"CAPABILITIES": "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"}
    variables |= {"SRVD_SOCKET": "/run/srvd/srvd.sock", "PYTHONDONTWRITEBYTECODE": "1", "WEB_CONCURRENCY": "3"}
    srvd = Contained(folder, config=toml("" if inside == AS_ON_THE_PAGE else "workers = 2"), env=variables)
    srvd.let_others_in()
    srvd.deploy(code)
    srvd.command = [*ENTER, "sh", "-c", inside, "sh", str(BIN / "srvd"), "start", "-c", str(folder / "srvd.toml")]
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
    contained.wait_logged("Read-only file system")
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


def test_what_the_page_for_docker_says_works(paged: Contained) -> None:
    assert paged.status()["daemon"]["pid"] == 1
    owner = paged.inside("stat", "--format=%u %a", "/run/srvd/srvd.sock", "/proc/1").stdout.split("\n")
    assert [line.split()[0] for line in owner[:2]] == ["4242", "4242"]
    assert len(paged.serving()) == 3  # WEB_CONCURRENCY
    with closing(paged.connect()) as client:
        client.request("POST", "/", body=b"x" * (2 << 20))  # too long for memory
        assert client.getresponse().status == 200
    # `docker exec` and the health check: the user and the variables of the image.
    srvctl = [*ORDINARY, str(BIN / "srvctl")]
    assert paged.inside(*srvctl, "status").returncode == EXIT.DONE
    assert paged.inside(*srvctl, "reload").returncode == EXIT.DONE
    assert paged.inside("setpriv", "--reuid=4243", *srvctl[2:], "reload").returncode == EXIT.PERMISSION
    # When memory is short the kernel chooses a worker, not the first process.
    scores = [
        int(paged.inside("cat", f"/proc/{pid}/oom_score_adj").stdout)
        for pid in (1, *(worker["pid"] for worker in paged.serving()))
    ]
    assert all(score > scores[0] for score in scores[1:])


def test_a_start_that_fails_ends_the_container_with_its_code(starter: Starter, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=f"ended with {EXIT.FAILED}"):
        next(_contained(starter, tmp_path, AS_ON_THE_PAGE, code="raise RuntimeError('no database')\n"))
    (srvd,) = starter.all
    srvd.process = None  # which was to be shown
    srvd.wait_logged("RuntimeError: no database")
