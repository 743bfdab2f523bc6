"""Claims about limits, niceness and OOM scores: what a process sets for itself, and what it may not."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from srvd.errors import LoadFailed
from srvd.linux.processes import limits

ROOT = os.geteuid() == 0


def in_child(body: Callable[[], object]) -> None:
    """What it does to itself stays there."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(LoadFailed) as caught:
        call()
    assert caught.value.hint
    return caught.value.message


def test_every_limit_has_the_name_that_python_has() -> None:
    for name, one in limits.RESOURCES.items():
        assert getattr(resource, f"RLIMIT_{name.upper()}") == one.number
    assert resource.RLIM_INFINITY == limits.UNLIMITED


def test_limits_are_set_and_a_hard_one_is_not_passed() -> None:
    def body() -> None:
        limits.set_limits({"nofile": (100, 200), "core": (0, 0)})
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (100, 200)
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        if ROOT:
            os.setresuid(1, 1, 1)
        message = refused(lambda: limits.set_limits({"nofile": (100, 300)}))
        assert message.startswith("set the limit nofile to 300: ")
        assert "the hard limit is 200" in message

    in_child(body)


def test_niceness_is_added_and_only_root_takes_it_back() -> None:
    def body() -> None:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        limits.set_nice(3)
        assert os.getpriority(os.PRIO_PROCESS, 0) == before + 3
        if ROOT:
            os.setresuid(1, 1, 1)
        assert refused(lambda: limits.set_nice(-3)).startswith("add -3 to the niceness: ")

    in_child(body)


def test_niceness_counts_beyond_the_session_where_sessions_are_groups() -> None:
    def body() -> None:
        os.setsid()
        limits.set_nice(5)
        ours = os.getpriority(os.PRIO_PROCESS, 0)  # the tests themselves may have been started with another than 0
        groups = Path("/proc/self/autogroup")
        assert not groups.exists() or not ROOT or groups.read_text().endswith(f" nice {ours}\n")

    in_child(body)


def test_a_process_can_offer_itself_to_the_oom_killer_and_not_always_save_itself() -> None:
    def body() -> None:
        score = Path("/proc/self/oom_score_adj")
        assert limits.set_oom_score(500)
        assert score.read_text() == "500\n"
        if ROOT:
            assert limits.set_oom_score(300)
            os.setresuid(1, 1, 1)
        assert not limits.set_oom_score(-1000)
        assert score.read_text() == ("300\n" if ROOT else "500\n")

    in_child(body)
