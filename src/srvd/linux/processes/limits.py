"""Sets resource limits, niceness and the score for the OOM killer.

Each applies to the calling process and to the processes that it forks. Chooses no value.
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
"""The OOM killer chooses a zygote before the daemon, and after a worker (500): a zygote can be loaded anew."""

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
"""The limits of getrlimit(2) by their names in shells and limits.conf(5). Left out: rss and locks, which Linux does not
enforce, and nice, which only limits what a process may set for itself.
"""


def set_limits(wanted: Mapping[str, tuple[int, int]]) -> None:
    """Sets soft and hard limits by name. Raises `LoadFailed`: raising the hard limit takes CAP_SYS_RESOURCE."""
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
    """Applies to a zygote what its workers have: limits, niceness, and the score for the OOM killer.

    score: of the workers; wished: the configuration sets it, so that a failure is not ignored. Raises `LoadFailed`.
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
    """Adds to the niceness. Raises `LoadFailed`: lowering it takes CAP_SYS_NICE."""
    try:
        os.nice(amount)
    except OSError as exc:
        raise LoadFailed(
            f"add {amount} to the niceness: {exc.strerror}; nothing was loaded",
            hint="only root may take a negative `nice`; correct it, or start srvd as root",
        ) from exc
    set_session_nice()


def set_session_nice() -> bool:
    """Makes the niceness count beyond this session. Returns False where the kernel does not group processes by session,
    or refuses.

    Where the kernel groups processes by session, the niceness of a process counts only among processes of the same
    session: sched(7), "The autogroup feature". Each process of srvd has a session of its own.
    """
    return _write("/proc/self/autogroup", os.getpriority(os.PRIO_PROCESS, 0))


def set_oom_score(score: int) -> bool:
    """Sets the score by which the OOM killer chooses this process (-1000..1000). Returns False if the kernel refuses.

    Raising it is always allowed; a value below the one that a privileged process has set takes CAP_SYS_RESOURCE:
    proc(5).
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
