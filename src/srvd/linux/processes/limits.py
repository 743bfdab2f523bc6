"""What a process may use, and who goes before it: resource limits, niceness, the choice of the OOM killer.

Each applies to the calling process and to what it forks. Chooses no value.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import Final

from srvd.errors import LoadFailed
from srvd.record import Record

__all__ = [
    "RESOURCES",
    "UNLIMITED",
    "Resource",
    "set_limits",
    "set_nice",
    "set_oom_score",
    "set_session_nice",
    "take_on",
]

_ZYGOTE_SCORE = 100
"""Likelier than the daemon, less likely than a worker (500): what is lost with it can be loaded anew."""

UNLIMITED: Final = -1
"""RLIM_INFINITY, as Python's `resource` has it."""


class Resource(Record):
    number: int
    in_bytes: bool


RESOURCES: Final[Mapping[str, Resource]] = {
    "as": Resource(resource.RLIMIT_AS, True),
    "core": Resource(resource.RLIMIT_CORE, True),
    "cpu": Resource(resource.RLIMIT_CPU, False),
    "data": Resource(resource.RLIMIT_DATA, True),
    "fsize": Resource(resource.RLIMIT_FSIZE, True),
    "memlock": Resource(resource.RLIMIT_MEMLOCK, True),
    "msgqueue": Resource(resource.RLIMIT_MSGQUEUE, True),
    "nofile": Resource(resource.RLIMIT_NOFILE, False),
    "nproc": Resource(resource.RLIMIT_NPROC, False),
    "rtprio": Resource(resource.RLIMIT_RTPRIO, False),
    "rttime": Resource(resource.RLIMIT_RTTIME, False),
    "sigpending": Resource(resource.RLIMIT_SIGPENDING, False),
    "stack": Resource(resource.RLIMIT_STACK, True),
}
"""The limits of getrlimit(2) by the names that shells and limits.conf(5) have for them. Not there: rss and locks, which
Linux does not keep, and nice, which is about what a process may make of itself.
"""


def set_limits(wanted: Mapping[str, tuple[int, int]]) -> None:
    """Set soft and hard limits by name. Raises `LoadFailed`: to go above the hard limit takes CAP_SYS_RESOURCE."""
    for name, (soft, hard) in wanted.items():
        number = RESOURCES[name].number
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as exc:  # ValueError: EPERM and EINVAL
            had = _spelled(resource.getrlimit(number)[1])
            raise LoadFailed(
                f"set the limit {name} to {_spelled(hard)}: {exc}; the hard limit is {had}; nothing was loaded",
                hint="raise the limit of srvd itself (ulimit, LimitNOFILE= in its unit), or correct `rlimits`",
            ) from exc


def take_on(limits: Mapping[str, tuple[int, int]], nice: int, score: int, *, wished: bool) -> None:
    """All that a zygote has of its workers' limits. `score`: of the workers; `wished`: somebody has set it. Raises
    `LoadFailed`.
    """
    set_limits(limits)
    if nice:
        set_nice(nice)
    score = min(_ZYGOTE_SCORE, score)
    if not set_oom_score(score) and wished:
        raise LoadFailed(
            f"set oom_score_adj to {score}: the kernel does not let us; nothing was loaded",
            hint="lower than it was takes CAP_SYS_RESOURCE, which root has, though not in every container",
        )


def set_nice(amount: int) -> None:
    """Add to the niceness. Raises `LoadFailed`: to become less nice takes CAP_SYS_NICE."""
    try:
        os.nice(amount)
    except OSError as exc:
        raise LoadFailed(
            f"add {amount} to the niceness: {exc.strerror}; nothing was loaded",
            hint="only root may take a negative `nice`; correct it, or start srvd as root",
        ) from exc
    set_session_nice()


def set_session_nice() -> bool:
    """Let the niceness count beyond this session; False where it cannot be, or need not.

    Where the kernel groups processes by session, a process's own niceness counts among those of its session only:
    sched(7), "The autogroup feature". Our processes each have a session.
    """
    return _write("/proc/self/autogroup", os.getpriority(os.PRIO_PROCESS, 0))


def set_oom_score(score: int) -> bool:
    """Make this process a likelier or less likely choice of the OOM killer (-1000..1000); False where it may not.

    Higher always may be; lower than what a privileged process has set takes CAP_SYS_RESOURCE: proc(5).
    """
    return _write("/proc/self/oom_score_adj", score)


def _write(path: str, number: int) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, b"%d" % number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _spelled(limit: int) -> str:
    return "unlimited" if limit == UNLIMITED else str(limit)
