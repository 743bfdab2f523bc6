"""Processes that workers and zygotes leave behind: found when one of these has ended, and ended with the daemon.

They are the daemon's children then, for it is the subreaper of all: so a process that made itself a session of its own
is found, too. Ends nothing at a reload: what still runs may be at work for the application.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection

from srvd.linux import process, procfs

__all__ = ["Leftovers"]

TERM_PATIENCE = 2.0
"""Seconds between SIGTERM and SIGKILL at the end of the daemon."""

KILL_PATIENCE = 1.0
"""And for SIGKILL to be obeyed; what hangs in the kernel is left to it."""

_LOOK = 0.02


class Leftovers:
    """Knows those that it has told of."""

    def __init__(self, known: Callable[[], Collection[int]]) -> None:
        """`known` gives the pids of the zygotes and workers that run."""
        self._known = known
        self._told: set[int] = set()

    def new(self) -> tuple[str, ...]:
        """Those that were not there, or not alone, when this was asked last: "sleep 777 (pid 4711)"."""
        found = self._all()
        self._told &= found.keys()
        new = sorted(found.keys() - self._told)
        self._told.update(new)
        return tuple(found[pid] for pid in new)

    def end(self, say: Callable[[str], None]) -> None:
        """SIGTERM to all there are, and SIGKILL to those that are still there some time later, and so to what these
        leave. Returns when there are none, or after the time for both.
        """
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
        """Children that are neither zygotes nor workers, nor the daemon's own: those are of its session."""
        known = set(self._known())
        found = {}
        for pid in procfs.children(os.getpid()):
            session = procfs.session(pid)
            if pid in known or session in known or session == os.getsid(0) or procfs.is_ending(pid):
                continue
            if what := procfs.described(pid):
                found[pid] = what.replace("srvd: ", "a fork of ", 1) if what.startswith("srvd: ") else what
        return found


def _signal(pid: int, number: int) -> None:
    """To a child of ours, which nobody else reaps: the pid is its own."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):  # the latter: it has become another user's
        return
