"""Sends away processes of a dead daemon's family that cannot be adopted: they leave when their requests are over.

Adopts no process. `late_callers.py` kills processes that do not leave in time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from srvd.daemon.family.callers import Calls, Orphan, SharedFds
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.recovery.envelope import Member
from srvd.errors import SystemRefused
from srvd.ids import WorkerId
from srvd.linux import fds, holders
from srvd.linux.holders import Holder
from srvd.linux.processes import process, procfs
from srvd.record import Record

__all__ = ["CALLS", "LATEST", "Reject", "send_all_away", "send_away", "unknown_children"]

CALLS = 1.0
"""Seconds within which every process that is not busy has called: time for five calls."""

LATEST = 30.0
"""Limit in seconds for the needed descriptors to be brought: all processes that have one may be in long requests."""


class Reject(Record):
    """A process of the family that cannot be adopted, and was told to leave."""

    pid: int
    pidfd: int


def send_away(orphan: Orphan) -> list[Reject]:
    """Tell an orphan and the children it named to leave; close its descriptors. Returns the processes told."""
    gone = [Reject(orphan.pid, os.dup(orphan.pidfd)), *unknown_children(orphan, set())]
    orphan.dismiss()
    return gone


def unknown_children(orphan: Orphan, known: set[Member]) -> list[Reject]:
    """Tell children of an orphan to leave that are not in `known`: forked after the state was written. Returns them."""
    rejects = []
    for serial, pid in orphan.call.children:
        if WorkerId(orphan.call.pool, orphan.call.generation, serial) in known:
            continue
        try:
            pidfd = process.open_pidfd(pid)
        except (OSError, OverflowError):
            continue
        # A malicious zygote may name any process: only its children are signalled.
        if procfs.parent(pid) == orphan.pid and process.send_signal(pidfd, signal.SIGTERM):
            rejects.append(Reject(pid, pidfd))
        else:
            os.close(pidfd)
    return rejects


def send_all_away(
    lock: FamilyLock, calls: Calls | None, say: Callable[[str], None], *, nobody: bool = False
) -> tuple[list[Reject], list[int]]:
    """Send every caller away. Returns the callers, and the listeners that they brought. The lock is held afterwards.

    `nobody`: no known member lives, so a process that holds the lock and does not call is no member: an application has
    started it, and it has outlived the application. If not given, such a process raises `SystemRefused`.
    """
    rejects: list[Reject] = []
    shared = SharedFds()
    began = heard = time.monotonic()
    told = False
    while not (lock.is_held and time.monotonic() - heard > CALLS):
        for orphan in calls.hear(0.05) if calls is not None else ():
            heard = time.monotonic()
            lock.join()
            rejects += send_away(shared.take(orphan))
        if calls is None:
            time.sleep(0.05)
        passed = time.monotonic() - began
        # A lock from the service manager's store can always be taken: then only time shows that no process calls.
        if not lock.is_held and passed > CALLS * lock.is_stored and lock.try_again():
            break
        if nobody and passed > CALLS and not lock.is_held:
            if found := holders.spell(holders.lockers(lock.lock)):
                say(f"left alone: {found}, which an application of a daemon that died has started")
            lock.renew()
            break
        if passed > LATEST:
            shared.close()
            fds.close_all(reject.pidfd for reject in rejects)
            raise _unanswered(lock)
        if passed > 2 * CALLS and not told:
            told = True
            found = holders.spell(holders.lockers(lock.lock)) or "processes that /proc does not show"
            say(f"waiting for {found}: a daemon that died has left them, and they have {lock.path} locked")
    return rejects, shared.sockets()


def _unanswered(lock: FamilyLock) -> SystemRefused:
    return SystemRefused(
        f"start: a process of a former daemon is alive, has {lock.path} open, and does not answer; nothing was started",
        hint=_hint(lock, holders.lockers(lock.lock)),
    )


def _hint(lock: FamilyLock, found: list[Holder]) -> str:
    """Return what an operator can do about processes that hold the lock and do not answer."""
    if not found:
        return f"as root, `fuser {lock.path}` names the processes; they leave when their requests are over"
    return (
        f"{holders.spell(found)} has its lock; workers leave when their requests are over, and what an application "
        "has started leaves when it is killed"
    )
