"""A fault in a real daemon under load: what it cost, how long the repair took, and what srvctl says of it.

Chooses no fault: the tests do. The figures are printed, for docs/benchmarks.md; `pytest -rP` shows them.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.daemon import BOOT, Map, Srvd
from tests.support.load import Failure, Load
from tests.support.waiting import wait_for

CLIENTS = 4

SOON = 30.0
"""Seconds that a repair may take which waits for nothing but a fork: it takes a hundredth of one, on a machine that has
nothing else to do.
"""


class Fault:
    """The time since it struck, and the requests that were lost since then."""

    def __init__(self, srvd: Srvd, load: Load, name: str) -> None:
        self.srvd = srvd
        self.load = load
        self.name = name
        self.struck = time.monotonic()
        self.killed: set[str] = set()
        self.doomed: set[int] = set()

    def strikes(self) -> None:
        """Now, and not when the load began."""
        self.struck = time.monotonic()

    def dooms(self, worker: str = "") -> Map:
        """A worker, the named one or that with most of the clients, stands still from now on: it is about to be killed.

        Its clients can be counted. Each of them will lose one request, the one that it has sent or sends next, and
        nobody else will: what `lost` claims. Their ports are `doomed`.
        """
        serving = {worker} if worker else self.srvd.names() - self.killed
        workers = [one for one in self.srvd.call("workers")["workers"] if one["id"] in serving]
        victim: Map = max(workers, key=lambda one: int(one["connections"]))
        self.killed.add(victim["id"])
        process = psutil.Process(victim["pid"])
        process.suspend()
        wait_for(lambda: process.status() == psutil.STATUS_STOPPED)  # until then it may accept one more
        # One that its client has closed, and the worker not yet, is nobody's any more.
        held = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
        self.doomed |= {connection.raddr.port for connection in held}
        assert worker or self.doomed, f"{victim['id']} has no client"
        return victim

    def kills(self, number: int = signal.SIGKILL, *, worker: str = "") -> str:
        """A signal ends a worker, the named one or that with most of the clients; its name."""
        victim = self.dooms(worker)
        self.strikes()
        os.kill(victim["pid"], number)
        if number != signal.SIGKILL:
            os.kill(victim["pid"], signal.SIGCONT)
        return str(victim["id"])

    def repaired(self, claim: Callable[[], object], within: float = BOOT) -> float:
        """Seconds until the claim is true; then as many requests again have to be answered as there are clients."""
        wait_for(claim, within)
        took = time.monotonic() - self.struck
        print(f"{self.name}: repaired after {1e3 * took:.0f} ms")  # noqa: T201 - a figure to read
        wait_for(lambda: self.doomed <= {failure.port for failure in self.load.failed})  # each of them has noticed
        self.load.more(2 * CLIENTS)
        return took

    def replaced(self, victim: str, count: int, within: float = SOON) -> float:
        """Seconds until `count` workers serve, and the victim is not among them."""
        return self.repaired(lambda: len(names := self.srvd.names()) == count and victim not in names, within)

    def lost(self, *spared: str) -> list[Failure]:
        """Requests that failed, but for those inside the processes that were killed. Of `dooms` these are known to the
        last. Of the workers `spared`, whom srvd ended or who ended themselves, each client lost one at most.

        A connection that one of these had just taken has not been answered yet, and so has no holder.
        """
        times = Counter(failure.port for failure in self.load.failed if failure.port)
        assert {port: times[port] for port in self.doomed} == dict.fromkeys(self.doomed, 1)
        others = [failure for failure in self.load.failed if failure.port not in self.doomed]
        inside = [one for one in others if spared and one.port and one.holder in {*spared, ""}]
        assert max((times[one.port] for one in inside), default=1) == 1, f"lost twice on one connection: {inside}"
        assert len(inside) <= len(spared) * CLIENTS, f"more were lost than there were connections: {inside}"
        return [failure for failure in others if failure not in inside]

    def why(self, *words: str) -> str:
        """What srvctl says of the deaths."""
        done = self.srvd.ctl("why", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def under_load(srvd: Srvd, name: str, path: str = "/") -> Iterator[Fault]:
    """Clients ask all the time while the block strikes, and a moment longer."""
    with srvd.under_load(CLIENTS, path) as load:
        fault = Fault(srvd, load, name)
        yield fault


@contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """No descriptor can be opened by the process while the block lasts: EMFILE."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextmanager
def small_disk(folder: Path, kilobytes: int = 128) -> Iterator[Path]:
    """A file system of its own; skips the test where none can be mounted."""
    folder.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "srvd-test", folder], capture_output=True
    )
    if mount.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mount.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def full_disk(disk: Path, room: int = 0) -> Iterator[None]:
    """Nothing is left of it while the block lasts, or so many bytes."""
    hog = disk / "hog"
    with suppress(OSError), hog.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    os.truncate(hog, hog.stat().st_size - room)
    yield
    hog.unlink()


@contextmanager
def control_group(file: str, limit: int, old: str = "") -> Iterator[Path]:
    """A control group with a limit in `file`, of version 2 or 1 (there it may be called `old`); skips the test where
    none can be made.
    """
    controller = file.partition(".")[0]
    for root, name in (("/sys/fs/cgroup", file), (f"/sys/fs/cgroup/{controller}", old or file)):
        if not Path(root, "cgroup.procs").exists():  # a folder for the hierarchies of version 1, and none itself
            continue
        group = Path(root) / f"srvd-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit))
        except OSError:  # a controller that is not switched on here
            group.rmdir()
            continue
        try:
            yield group
        finally:
            for pid in (group / "cgroup.procs").read_text().split():  # they leave; who looks for them finds them
                (group.parent / "cgroup.procs").write_text(pid)
            group.rmdir()
        return
    pytest.skip(f"no control group for {controller} can be made here")
