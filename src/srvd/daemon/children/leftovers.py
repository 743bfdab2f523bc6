"""Processes that workers and zygotes leave behind: found when a worker or zygote ends, reaped, ended with the daemon.

Ends none of them at a reload: they may be at work for the application. They become children of the daemon, which is the
subreaper, so a process with a session of its own is found, too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from srvd.linux import interpreter
from srvd.linux.processes import process, procfs

__all__ = ["Leftovers"]

TERM_PATIENCE = 2.0
"""Seconds between SIGTERM and SIGKILL at the end of the daemon."""

KILL_PATIENCE = 1.0
"""Seconds after SIGKILL. A process that hangs in the kernel is left behind."""

_LOOK = 0.02

_ZOMBIES = 256
"""Processes that are reaped in one call; SIGCHLD comes again for the others."""


class Leftovers:
    """Remembers which processes it has reported."""

    def __init__(self, is_known: Callable[[int], bool]) -> None:
        """is_known: whether a zygote or worker has this pid."""
        self._is_known = is_known
        self._told: set[int] = set()

    def new(self) -> tuple[str, ...]:
        """The processes that were left behind since the last call: "sleep 777 (pid 4711)"."""
        found = self._all()
        self._told &= found.keys()
        new = sorted(found.keys() - self._told)
        self._told.update(new)
        return tuple(found[pid] for pid in new)

    def reap(self, check: Callable[[int], bool]) -> list[int]:
        """Reap those that have ended. Returns their pids. `check`: handles the end of a worker or zygote by its pid."""
        reaped = []
        for _ in range(_ZOMBIES):
            pid = process.next_zombie()
            if pid is None:
                break
            if not check(pid):
                process.reap_pid(pid)
                reaped.append(pid)
        return reaped

    def end(self, say: Callable[[str], None]) -> None:
        """Send SIGTERM to all, SIGKILL to those that remain, and the same to the processes that these leave behind.

        Returns when none is left, at the latest after `TERM_PATIENCE` and `KILL_PATIENCE`.
        """
        interpreter.discard(wait=True)
        ended: set[int] = set()
        began = time.monotonic()
        while left := self._all():
            passed = time.monotonic() - began
            if passed > TERM_PATIENCE + KILL_PATIENCE:
                break
            for pid, what in left.items():
                if pid not in ended:
                    say(f"ending {what}, which was left behind")
                    _signal(pid, signal.SIGTERM)
                    _signal(pid, signal.SIGCONT)
                elif passed > TERM_PATIENCE:
                    _signal(pid, signal.SIGKILL)
                ended.add(pid)
            time.sleep(_LOOK)
            while (zombie := process.next_zombie()) is not None and process.reap_pid(zombie) is not None:
                continue

    def _all(self) -> dict[int, str]:
        """The children that are no zygote or worker, and not in the daemon's own session, by pid."""
        found = {}
        for pid in procfs.children(os.getpid()):
            session = procfs.session(pid)
            if self._is_ours(pid) or self._is_ours(session) or session == os.getsid(0) or procfs.is_ending(pid):
                continue
            if what := procfs.described(pid):
                found[pid] = what.replace("srvd: ", "a fork of ", 1) if what.startswith("srvd: ") else what
        return found

    def _is_ours(self, pid: int) -> bool:
        """A worker, a zygote and a prepared interpreter are no leftovers."""
        return self._is_known(pid) or pid in interpreter.prepared()


def _signal(pid: int, number: int) -> None:
    """Signal a child. Only this process reaps it, so the pid cannot belong to another process."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):  # EPERM: the process has become another user's
        return
