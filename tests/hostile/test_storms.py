"""Claims about storms: of signals, of orders, of upgrades that cannot be, and of deaths of everything at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from srvd.client.connection import Client
from srvd.errors import SrvdError
from tests.conftest import Starter
from tests.support.adoption import is_written
from tests.support.daemon import BOOT, KILL, Srvd, toml
from tests.support.shares import shares
from tests.support.srvd_versions import Versions
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

SECONDS = 1.5
GROWTH = 10 << 20
"""Bytes by which the daemon may have grown."""


def _signals(*numbers: int) -> Callable[[Srvd], None]:
    def storm(srvd: Srvd) -> None:
        for number in numbers:
            for _ in range(20):
                srvd.signal(number)
            time.sleep(0.001)

    return storm


def _orders(*orders: tuple[str, Mapping[str, object]]) -> Callable[[Srvd], None]:
    def storm(srvd: Srvd) -> None:
        for method, args in orders:
            with suppress(SrvdError):  # too many at once, or one in the way of another: said so
                srvd.call(method, **args)

    return storm


def _connections(srvd: Srvd) -> None:
    for number in range(20):
        with suppress(SrvdError), srvd.client() as client:
            if number % 2:
                client.call("ping")


STORMS: dict[str, Callable[[Srvd], None]] = {
    "of HUP": _signals(signal.SIGHUP),
    "of TTIN and TTOU": _signals(signal.SIGTTIN, signal.SIGTTOU),
    "of USR1": _signals(signal.SIGUSR1),
    "of signals that mean nothing": _signals(signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT, signal.SIGPIPE),
    "of all of these": _signals(signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR1, signal.SIGCHLD, signal.SIGTTOU),
    "of sizes": _orders(*(("scale", {"pool": "web", "size": size}) for size in (1, 4, 2))),
    "of reloads and rollbacks": _orders(("reload", {}), ("rollback", {}), ("recycle", {})),
    "of pauses": _orders(("pause", {"pool": "web"}), ("resume", {"pool": "web"})),
    "of questions": _orders(("dump", {}), ("why", {"all": True}), ("history", {}), ("config", {}), ("workers", {})),
    "of connections": _connections,
}


@contextmanager
def stormed(acts: list[Callable[[], None]]) -> Iterator[None]:
    """All acts again and again, each by a thread of its own, while the block lasts."""
    over = threading.Event()

    def run(act: Callable[[], None]) -> None:
        while not over.is_set():
            act()

    with ThreadPoolExecutor(len(acts)) as pool:
        running = [pool.submit(run, act) for act in acts]
        try:
            yield
        finally:
            over.set()
        for one in running:
            one.result(60)


def calms_down(srvd: Srvd, workers: int) -> None:
    wait_for(lambda: not srvd.call("op.list")["operations"], within=60)
    srvd.call("resume", pool="web")
    srvd.call("scale", pool="web", size=workers)
    wait_for(lambda: srvd.is_ready() and len(srvd.serving()) == workers, BOOT)
    assert srvd.get()
    assert "a bug in srvd" not in srvd.logged()


@pytest.fixture(scope="module")
def stormy(module_starter: Starter) -> Srvd:
    srvd = module_starter(config=toml('workers = 2\nrollback_window = "1s"\nboot_timeout = "20s"'))
    assert srvd.ctl("reload").returncode == 0  # what only reloads need is in memory from now on
    return srvd


@pytest.mark.parametrize("storm", STORMS)
def test_a_storm_keeps_no_asker_waiting_and_loses_no_request(stormy: Srvd, storm: str) -> None:
    daemon = psutil.Process(stormy.pid)
    calms_down(stormy, 2)
    before = daemon.memory_info().rss
    with stormy.under_load(2) as load, stormed([lambda: STORMS[storm](stormy)] * 3):
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            with Client.connect(str(stormy.socket), timeout=10) as client:
                client.call("ping")
    calms_down(stormy, 2)
    assert load.failed == []
    wait_for(lambda: daemon.num_fds() <= 64, BOOT)
    assert daemon.memory_info().rss - before < GROWTH


def test_upgrades_that_cannot_be_change_nothing_however_many_ask(starter: Starter, tmp_path: Path) -> None:
    """Three at once, again and again, among quick connections and signals."""
    versions = Versions(tmp_path / "versions")
    versions.install("1.0")
    srvd = starter("--workers", "2", env=versions.env)
    family = {process.pid for process in srvd.family()}
    versions.install(
        "1.1",
        {
            "daemon/control/backend.py": (
                "class DaemonBackend:",
                "raise RuntimeError('not finished')\nclass DaemonBackend:",
            )
        },
    )
    signals = _signals(signal.SIGUSR1, signal.SIGCHLD, signal.SIGWINCH)
    acts = [lambda: _connections(srvd), lambda: _connections(srvd), lambda: signals(srvd)]
    with srvd.under_load(2) as load, stormed(acts), ThreadPoolExecutor(3) as asking:
        for _ in range(3):
            for done in asking.map(lambda _: srvd.ctl("upgrade"), range(3)):
                assert done.returncode == 1, done
                assert "RuntimeError: not finished" in done.stderr
    calms_down(srvd, 2)
    assert srvd.status()["daemon"]["version"] == "1.0"
    assert {process.pid for process in srvd.family()} == family
    assert load.failed == []


@pytest.mark.parametrize("share", shares(3, slow=0))
def test_a_start_after_the_death_of_everything_serves_each_time(starter: Starter, share: int) -> None:
    """Daemon, zygote and workers are killed at once, twice, in another order each time."""
    srvd = starter(config=toml("workers = 3"))
    for turn in (share, share + 3):
        wait_for(lambda: is_written(srvd))
        family = [srvd.pid, *(process.pid for process in srvd.family())]
        for pid in family[turn % len(family) :] + family[: turn % len(family)]:
            os.kill(pid, KILL)
        assert srvd.wait() == -KILL
        srvd.start()
        assert len(srvd.serving()) == 3
        assert not set(family) & {worker["pid"] for worker in srvd.serving()}
        assert srvd.get()
    assert "a bug in srvd" not in srvd.logged()
