"""Claims about pidfds, exits, zombies, signals and identities, made with real processes."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from srvd.errors import LoadFailed
from srvd.linux.processes import identity, process
from srvd.linux.processes.cgroup import OomWatch, granted_cpus, memory_left
from srvd.linux.processes.process import Ended
from tests.support.waiting import wait_for

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def spawn(body: Callable[[], int]) -> tuple[int, int]:
    """The pid and pidfd of a child that runs `body` and exits with its result."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            code = body()
        finally:
            os._exit(code)
    return pid, process.open_pidfd(pid)


def pause() -> int:
    signal.pause()
    return 0


def test_an_exit_code_and_a_signal_are_told_apart() -> None:
    _, exits = spawn(lambda: 3)
    _, dies = spawn(pause)
    assert process.reap(dies) is None
    assert process.send_signal(dies, signal.SIGKILL)
    assert wait_for(lambda: process.reap(exits)) == Ended(exit_code=3)
    assert wait_for(lambda: process.reap(dies)) == Ended(signal=9)
    assert str(Ended(exit_code=3)) == "exit 3"
    assert str(Ended(signal=9)) == "signal 9"
    assert str(Ended()) == "unknown"
    assert not process.send_signal(dies, signal.SIGKILL)
    with pytest.raises(ChildProcessError):
        process.reap(dies)
    os.close(exits)
    os.close(dies)


def test_a_zombie_is_seen_without_being_reaped() -> None:
    pid, pidfd = spawn(lambda: 5)
    while (found := wait_for(process.next_zombie)) not in (pid, None):  # of another test
        assert found is not None
        process.reap_pid(found)
    assert process.next_zombie() == pid
    assert process.is_over(pidfd)
    assert process.reap_pid(pid) == Ended(exit_code=5)
    assert process.next_zombie() is None
    assert process.reap_pid(pid) is None
    os.close(pidfd)


def test_a_group_signal_reaches_what_outlives_its_leader() -> None:
    read, write = os.pipe()

    def lead() -> int:
        os.setsid()
        if os.fork() == 0:
            os.write(write, b"%d" % os.getpid())
            signal.pause()
        signal.pause()
        return 0

    pid, pidfd = spawn(lead)
    os.close(write)
    member = int(os.read(read, 20))
    member_fd = process.open_pidfd(member)
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: process.reap(pidfd)) == Ended(signal=9)
    assert not process.is_over(member_fd)
    if process.send_group_signal(pidfd, pid, signal.SIGKILL):  # Linux 6.9
        wait_for(lambda: process.is_over(member_fd))
    else:
        process.send_signal(member_fd, signal.SIGKILL)
    for fd in (read, pidfd, member_fd):
        os.close(fd)


def test_an_old_kernel_gets_its_group_signal_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PROCESS_GROUP", 1 << 30)  # EINVAL, as the flag is before Linux 6.9
    ready, started = os.pipe()

    def lead() -> int:
        os.setsid()
        os.write(started, b"x")
        return pause()

    pid, pidfd = spawn(lead)
    os.read(ready, 1)
    assert process.send_group_signal(pidfd, pid, signal.SIGTERM)
    assert wait_for(lambda: process.reap(pidfd)) == Ended(signal=15)
    assert not process.send_group_signal(pidfd, pid, signal.SIGTERM)
    for fd in (ready, started, pidfd):
        os.close(fd)


def test_signals_are_reset_and_unblocked() -> None:
    def body() -> int:
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        process.reset_signals()
        handlers = {signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT)}
        clean = handlers == {signal.SIG_DFL} and not signal.pthread_sigmask(signal.SIG_BLOCK, [])
        return 0 if clean and signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN else 1

    _, pidfd = spawn(body)
    assert wait_for(lambda: process.reap(pidfd)) == Ended(exit_code=0)
    os.close(pidfd)


def test_the_limit_on_open_files_is_lifted_to_the_hard_one() -> None:
    def body() -> int:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        return 0 if process.raise_open_files() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0] else 1

    _, pidfd = spawn(body)
    assert wait_for(lambda: process.reap(pidfd)) == Ended(exit_code=0)
    os.close(pidfd)


def test_a_daemon_becomes_the_parent_of_its_childrens_orphans() -> None:
    program = """
import os, signal, sys, time
from srvd.linux.processes.prctl import become_subreaper
become_subreaper()
daemon = os.getpid()
if os.fork() == 0:
    if os.fork() == 0:
        for _ in range(5000):
            if os.getppid() == daemon:
                os._exit(7)
            time.sleep(0.001)
    os._exit(0)
codes = sorted(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2))
sys.exit(0 if codes == [0, 7] else 1)
"""
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0


def test_no_name_means_no_change() -> None:
    assert identity.resolve("", "") is None
    assert identity.resolve(str(os.geteuid()), str(os.getegid())) is None


@pytest.mark.parametrize(
    ("user", "group", "complaint"),
    [
        ("no-such-user", "", "no such user"),
        ("", "no-such-group", "no such group"),
        ("3999999999", "", "its group is unknown"),
    ],
)
def test_an_unknown_identity_is_named(user: str, group: str, complaint: str) -> None:
    with pytest.raises(LoadFailed, match=complaint):
        identity.resolve(user, group)


@root_only
def test_a_process_becomes_another_user_for_good() -> None:
    wanted = identity.resolve("nobody", "")
    assert wanted is not None

    def body() -> int:
        identity.assume(wanted)
        try:
            os.setuid(0)
        except PermissionError:
            return 0 if os.getresuid() == (wanted.uid,) * 3 and 0 not in os.getgroups() else 1
        return 2

    _, pidfd = spawn(body)
    assert wait_for(lambda: process.reap(pidfd)) == Ended(exit_code=0)
    os.close(pidfd)


@root_only
def test_only_root_changes_its_user() -> None:
    nobody = identity.resolve("nobody", "")
    assert nobody is not None

    def body() -> int:
        identity.assume(nobody)
        try:
            identity.resolve("root", "")
        except LoadFailed as failed:
            return 0 if "only root" in failed.message else 1
        return 2

    _, pidfd = spawn(body)
    assert wait_for(lambda: process.reap(pidfd)) == Ended(exit_code=0)
    os.close(pidfd)


@pytest.mark.parametrize(
    ("membership", "events"),
    [
        ("0::/srvd.slice\n", "srvd.slice/memory.events"),
        ("1:cpu:/\n4:memory:/box\n0::/\n", "memory/box/memory.oom_control"),
    ],
)
def test_each_oom_kill_is_told_of_once(tmp_path: Path, membership: str, events: str) -> None:
    (tmp_path / "cgroup").write_text(membership)
    counter = tmp_path / events
    counter.parent.mkdir(parents=True)
    counter.write_text("oom 9\noom_kill 4\n")
    watch = OomWatch(str(tmp_path), str(tmp_path / "cgroup"))
    assert not watch.struck()
    counter.write_text("oom 11\noom_kill 6\n")
    assert [watch.struck() for _ in range(3)] == [True, True, False]
    counter.unlink()
    assert not watch.struck()


def test_the_nearest_limit_of_all_groups_above_counts(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/outer/inner\n")
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    where = (str(tmp_path), str(tmp_path / "cgroup"))
    assert memory_left(*where) is None
    for folder, limit, used, cache in ((inner, "max", 10, 0), (inner.parent, "1000", 700, 200)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")
    assert memory_left(*where) == 500
    (inner / "memory.max").write_text("100\n")
    assert memory_left(*where) == 90
    (inner / "memory.current").write_text("200\n")
    assert memory_left(*where) == 0


def test_the_limits_of_a_containers_own_root_group_count(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/\n")
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    where = (str(tmp_path), str(tmp_path / "cgroup"))
    assert memory_left(*where) == 600
    assert granted_cpus(*where) == 1


@pytest.mark.parametrize(
    ("inner", "outer", "cpus"),
    [
        ("max 100000", "max 100000", 6),
        ("", "", 6),
        ("150000 100000", "max 100000", 2),
        ("400000 100000", "300000 100000", 3),
        ("1000 100000", "300000 100000", 1),
        ("900000 100000", "", 6),
    ],
)
def test_processors_are_those_of_the_affinity_and_of_all_quotas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str, outer: str, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    (tmp_path / "cgroup").write_text("0::/outer/inner\n")
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "cpu.max").write_text(f"{outer}\n")
    (tmp_path / "outer" / "inner" / "cpu.max").write_text(f"{inner}\n")
    assert granted_cpus(str(tmp_path), str(tmp_path / "cgroup")) == cpus


def test_a_quota_of_the_old_control_groups_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    (tmp_path / "cgroup").write_text("4:cpu,cpuacct:/box\n0::/\n")
    (tmp_path / "cpu" / "box").mkdir(parents=True)
    for quota, cpus in (("-1", 6), ("250000", 3)):
        (tmp_path / "cpu" / "box" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (tmp_path / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")
        assert granted_cpus(str(tmp_path), str(tmp_path / "cgroup")) == cpus


def test_a_limit_of_the_old_control_groups_counts_and_their_none_does_not(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/box\n0::/\n")
    box = tmp_path / "memory" / "box"
    box.mkdir(parents=True)
    (box / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_left(str(tmp_path), str(tmp_path / "cgroup")) is None
    (box / "memory.limit_in_bytes").write_text("1000\n")
    (box / "memory.usage_in_bytes").write_text("400\n")
    assert memory_left(str(tmp_path), str(tmp_path / "cgroup")) == 600
