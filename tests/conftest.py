"""Fixtures of the system tests: daemons that are stopped at the end, of which nothing may be left.

The harness itself is support/daemon.py.
"""

from __future__ import annotations

import compileall
import contextlib
import fcntl
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from srvd import errors
from srvd.linux.processes.prctl import become_subreaper
from tests.support import apps, srvctl_process
from tests.support.daemon import Srvd, descendants
from tests.support.waiting import wait_for

# A shell without job control ignores SIGINT for what it starts with `&`, and children inherit that: CI, cron, make -j.
# Tests that interrupt a program would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes no claim untrue. The same examples each time: a change is not refused for what others have left.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", _PATIENT, derandomize=True)
settings.register_profile("explore", _PATIENT)
settings.load_profile("same")

_STARTED = pytest.StashKey[list[Srvd]]()
_FAILED = pytest.StashKey[bool]()

_LOG_SHOWN = 20_000
"""Characters of a daemon's log that a failure shows."""


_FILES_SIDE_BY_SIDE = 3
"""For each processor: a test waits most of the time."""

_TESTS_SIDE_BY_SIDE = (
    "core/test_walk.py",
    "core/test_snapshot.py",
    "core/test_resuming.py",
    "linux/test_deadman.py",
    "worker/test_max_connections.py",
    "worker/test_access_log.py",
    "worker/test_slow_peers.py",
    "worker/test_threads.py",
    "worker/supervision/test_commands.py",
    "system/test_adoption.py",
    "system/test_upgrade.py",
    "faults/test_applications.py",
)
"""Files that would bound the whole run. They have no fixture that is shared by tests."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Files that run side by side with `-n auto`; 0 for a few named files, which are quicker without."""
    named = [argument for argument in config.args if Path(argument.partition("::")[0]).is_file()]
    if named and len(named) == len(config.args) and len(named) <= 2:
        return 0
    return _FILES_SIDE_BY_SIDE * (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Each process compiles all tests: seconds, unless their bytecode is there. So it is written, even where
    PYTHONDONTWRITEBYTECODE is set, but only meanwhile: nothing is written for the applications of tests. One process
    begins, and the others wait until it has written.
    """
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, False
    with open(__file__) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
        try:
            return (yield)
        finally:
            sys.dont_write_bytecode = before
            gc.freeze()  # thousands of tests, which stay: the garbage collector need not look at them again and again


class _Side(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """A file is the work of one process, for the sake of its fixtures; of some files each test is work of its own."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file.endswith(_TESTS_SIDE_BY_SIDE) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Side | None:
    """The scheduler of `--dist loadfile` is ours."""
    return _Side(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_itemcollected(item: pytest.Item) -> None:
    """What has a daemon from here is a system test, whether or not its file says so."""
    if {"starter", "module_starter", "srvd"}.intersection(getattr(item, "fixturenames", ())):
        item.add_marker("system")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests run only if they are asked for. Slow files first, then those with daemons, and of these the ones with
    most tests: the last ones to begin must not be those that end long after all others.
    """
    if "long" not in config.option.markexpr and not any("::" in argument for argument in config.args):
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    heavy = {item.path for item in items if item.get_closest_marker("slow")}
    system = {item.path for item in items if item.get_closest_marker("system")}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (0 if item.path in heavy else 1 if item.path in system else 2, -tests[item.path]))


class Starter:
    """Makes daemons, each in a folder of its own below the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Srvd] = []

    def new(
        self,
        *flags: str,
        config: str = "",
        code: str | None = None,
        env: Mapping[str, str] | None = None,
        fds: tuple[int, ...] = (),
    ) -> Srvd:
        """One that is not started yet; `code` is its application."""
        folder = self.folder / f"srvd{len(self.all)}"
        folder.mkdir()
        srvd = Srvd(folder, *flags, config=config, env=env, fds=fds)
        srvd.deploy(apps.good() if code is None else code)
        self.all.append(srvd)
        return srvd

    def __call__(
        self, *flags: str, config: str = "", code: str | None = None, env: Mapping[str, str] | None = None
    ) -> Srvd:
        """One that is ready."""
        return self.new(*flags, config=config, code=code, env=env).start()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users get into. Not below pytest's own, for the reason that `_starting` has."""
    with tempfile.TemporaryDirectory(prefix="srvd-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    """Starts daemons. Whatever the test did with them: at its end they stop, and nothing is left of them."""
    yield from _starting(request.node)


@pytest.fixture(scope="module")
def module_starter(request: pytest.FixtureRequest) -> Iterator[Starter]:
    """The same, for daemons that several tests of a module ask."""
    yield from _starting(request.node)


@cache
def _compile() -> None:
    """Daemons of tests write no bytecode: two deploys within a second could look the same to Python. So srvd's own is
    written here, once, or each of them would compile all of srvd anew.
    """
    compileall.compile_dir(str(Path(errors.__file__).parent), quiet=2)


def _starting(node: Any) -> Iterator[Starter]:
    # Not below pytest's own folder: every run that begins anywhere on the machine shuts that to all others
    # (TempPathFactory.getbasetemp), also to users whom a test that runs lets in.
    folder = Path(tempfile.mkdtemp(prefix="srvd-test-"))
    yield from _starting_in(node, folder)
    if not node.stash.get(_FAILED, False):  # else it is the evidence
        shutil.rmtree(folder)


def _starting_in(node: Any, folder: Path) -> Iterator[Starter]:
    _compile()
    srvctl_process.server()  # not a child that a test has left
    become_subreaper()  # what a daemon left behind becomes our child, and can be found
    before = _children()
    starter = Starter(folder)
    node.stash[_STARTED] = starter.all
    yield starter
    try:
        for srvd in starter.all:
            _end(srvd)
        with contextlib.suppress(AssertionError):  # what was killed, or lost its daemon, may take a moment
            wait_for(lambda: not _alive(before))
    finally:
        left = _end_all(_alive(before))
    assert not left, f"processes were left: {left}"
    for srvd in starter.all:
        assert not srvd.socket.exists(), f"the control socket of {srvd} is left"


@pytest.fixture
def srvd(starter: Starter) -> Srvd:
    """A daemon that is ready: the good application, 2 workers, a port that the kernel chose."""
    return starter("--workers", "2")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        module = item.getparent(pytest.Module)
        item.stash[_FAILED] = True
        if module is not None:
            module.stash[_FAILED] = True
        for srvd in [*item.stash.get(_STARTED, []), *(module.stash.get(_STARTED, []) if module else [])]:
            report.sections.append((f"log of {srvd}", srvd.logged()[-_LOG_SHOWN:]))
    return report


def _end(srvd: Srvd) -> None:
    """Stops it if it still runs, as an operator would, and claims that its family goes with it."""
    if srvd.process is None and not srvd.daemonized:
        return
    if srvd.process is not None and srvd.process.poll() is not None:
        msg = f"{srvd} ended by itself with {srvd.process.returncode}"
        raise AssertionError(msg)
    family = srvd.family()
    assert srvd.stop() == 0
    left = [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert not left, f"{srvd} stopped and left {left}"


def _children() -> set[psutil.Process]:
    return set(descendants(os.getpid()))


def _alive(before: set[psutil.Process]) -> list[psutil.Process]:
    """Our descendants but those of `before`. Zombies that became ours are reaped on the way: they were over."""
    alive = []
    for process in _children() - before:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
            else:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
        except (psutil.NoSuchProcess, ChildProcessError):  # it is gone, or its parent will reap it
            continue
    return alive


def _end_all(processes: list[psutil.Process]) -> list[str]:
    """Kills and reaps what should not be there; what it was."""
    found = [f"{process.pid} {process.cmdline()}" for process in processes]
    for process in processes:
        process.kill()
    for process in processes:
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED)
        except ChildProcessError:  # it was the child of another one of them, which has reaped it
            continue
    return found
