"""Tells whether the kernel's OOM killer struck in our control group since it was asked last.

Not proof for one process: the kernel counts per group, so each kill is given to one death by SIGKILL.
"""

from __future__ import annotations

import os

__all__ = ["OomWatch"]


class OomWatch:
    """Counts kills of the OOM killer in this process's control group, cgroup v2 or v1."""

    __slots__ = ("_known", "_path")

    def __init__(self, root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> None:
        self._path = _events_file(root, membership)
        self._known = self._kills()

    def struck(self) -> bool:
        """Whether there is a kill that was not told of before; each is told of once. False where none is counted."""
        kills = self._kills()
        if kills <= self._known:
            self._known = kills
            return False
        self._known += 1
        return True

    def _kills(self) -> int:
        """`oom_kill` of memory.events (v2) or memory.oom_control (v1); 0 where there is none."""
        for line in _read(self._path).splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill" and value.isdecimal():
                return int(value)
        return 0


def _events_file(root: str, membership: str) -> str:
    """The file that counts, by the lines `ID:CONTROLLERS:PATH` of cgroups(7); "" if there is none."""
    found = ""
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            return f"{root}/memory{path.rstrip('/')}/memory.oom_control"
        if not controllers:
            found = f"{root}{path.rstrip('/')}/memory.events"
    return found


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
