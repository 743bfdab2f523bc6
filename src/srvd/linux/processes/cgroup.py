"""Reads the control group's figures: kills by the OOM killer, the memory left below the limit, the processors granted.

A kill proves nothing about one process: the kernel counts kills per group, so each counted kill explains one death by
SIGKILL. Knows cgroup v2 and v1; a figure that cannot be read is absent, and never an error.
"""

from __future__ import annotations

import os

__all__ = ["OomWatch", "granted_cpus", "memory_left"]

_ROOT = "/sys/fs/cgroup"
_MEMBERSHIP = "/proc/self/cgroup"
_NO_LIMIT = 1 << 60  # cgroup v1 says "no limit" by a number near 2^63


class OomWatch:
    """Counts kills of the OOM killer in this process's control group, cgroup v2 or v1."""

    __slots__ = ("_known", "_path")

    def __init__(self, root: str = _ROOT, membership: str = _MEMBERSHIP) -> None:
        group, version = _group(root, membership)
        self._path = f"{group}/{'memory.events' if version == 2 else 'memory.oom_control'}"
        self._known = self._kills()

    def struck(self) -> bool:
        """Returns True once for each kill since the last calls; False without one, or where kills are not counted."""
        kills = self._kills()
        if kills <= self._known:
            self._known = kills
            return False
        self._known += 1
        return True

    def _kills(self) -> int:
        """Returns `oom_kill` of memory.events (v2) or memory.oom_control (v1); 0 where there is none."""
        return _field(self._path, "oom_kill")


def memory_left(root: str = _ROOT, membership: str = _MEMBERSHIP) -> int | None:
    """Returns the least bytes left below a limit, of this process's group and its parents; None without limits."""
    group, version = _group(root, membership)
    limit, usage, cache = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    left: int | None = None
    while len(group) >= len(root):  # the root of a container's own namespace has limits, too
        most = _number(f"{group}/{limit}")
        if most is not None and most < _NO_LIMIT:
            # The kernel counts inactive file pages as used, but frees them before it kills a process.
            used = (_number(f"{group}/{usage}") or 0) - _field(f"{group}/memory.stat", cache)
            left = min(max(most - used, 0), most if left is None else left)
        group = group.rpartition("/")[0]
    return left


def granted_cpus(root: str = _ROOT, membership: str = _MEMBERSHIP) -> int:
    """Returns the processors that this process may use: those of its affinity, and at most the quota of its control
    group and of the group's parents, rounded up. At least 1.
    """
    group, version = _group(root, membership, "cpu")
    cpus = len(os.sched_getaffinity(0))
    while len(group) >= len(root):  # the root of a container's own namespace has limits, too
        if version == 2:
            quota, _, period = _read(f"{group}/cpu.max").strip().partition(" ")
        else:
            quota, period = (_read(f"{group}/cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal():  # "max" and -1: no limit
            cpus = min(cpus, max(1, -(-int(quota) // int(period))))
        group = group.rpartition("/")[0]
    return cpus


def _group(root: str, membership: str, controller: str = "memory") -> tuple[str, int]:
    """Returns the folder of this process's group for a controller and the cgroup version, read from the lines
    `ID:CONTROLLERS:PATH` of cgroups(7).
    """
    unified = root
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return f"{root}/{controller}{path.rstrip('/')}", 1
        if not controllers:
            unified = f"{root}{path.rstrip('/')}"
    return unified, 2


def _field(path: str, wanted: str) -> int:
    """Returns the number behind a name in a file of lines `NAME NUMBER`; 0 if there is none."""
    for line in _read(path).splitlines():
        name, _, value = line.partition(" ")
        if name == wanted and value.isdecimal():
            return int(value)
    return 0


def _number(path: str) -> int | None:
    """Returns the only number in a file; None if there is no file, or "max" stands in it."""
    text = _read(path).strip()
    return int(text) if text.isdecimal() else None


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 65536).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)
