"""Those of a dead daemon's family with whom no daemon can go on: they are told to leave when their requests are over.

Adopts nobody. Who does not leave in time is ended by `late_callers.py`.
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

__all__ = ["CALLS", "LATEST", "Reject", "dissolve", "send_away", "unknown_children"]

CALLS = 1.0
"""Seconds in which everybody has called who is not busy: five calls."""

LATEST = 30.0
"""Seconds within which what is needed has to be there: all who have it may be in long requests."""


class Reject(Record):
    """Of the family, and of no use. It was told to leave."""

    pid: int
    pidfd: int


def send_away(orphan: Orphan) -> list[Reject]:
    """Tell it to leave, and whom of its children it named; its descriptors are closed."""
    gone = [Reject(orphan.pid, os.dup(orphan.pidfd)), *unknown_children(orphan, set())]
    orphan.dismiss()
    return gone


def unknown_children(orphan: Orphan, known: set[Member]) -> list[Reject]:
    """Those of its children that came to be after the state was written, told to leave."""
    rejects = []
    for serial, pid in orphan.here.children:
        if WorkerId(orphan.here.pool, orphan.here.generation, serial) in known:
            continue
        try:
            pidfd = process.open_pidfd(pid)
        except (OSError, OverflowError):
            continue
        # A zygote that went bad may name anybody: only what is its child is ever signalled.
        if procfs.parent(pid) == orphan.pid and process.send_signal(pidfd, signal.SIGTERM):
            rejects.append(Reject(pid, pidfd))
        else:
            os.close(pidfd)
    return rejects


def dissolve(
    lock: FamilyLock, calls: Calls | None, say: Callable[[str], None], *, nobody: bool = False
) -> tuple[list[Reject], list[int]]:
    """Send everybody away who calls, when their requests are over; who they are, and the listeners that they brought.

    `nobody`: none of those who are known lives, so what holds the lock and does not call either is no family of ours:
    a process that an application has started, and that has outlived it. Else that is `SystemRefused`.
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
        # A lock that a service manager has table can always be taken: then only time tells that nobody calls.
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
            raise SystemRefused(
                f"start: somebody of a daemon that died lives, has {lock.path} open, and does not answer; "
                "nothing was started",
                hint=_hint(lock, holders.lockers(lock.lock)),
            )
        if passed > 2 * CALLS and not told:
            told = True
            found = holders.spell(holders.lockers(lock.lock)) or "processes that /proc does not show"
            say(f"waiting for {found}: a daemon that died has left them, and they have {lock.path} locked")
    return rejects, shared.sockets()


def _hint(lock: FamilyLock, found: list[Holder]) -> str:
    """What an operator can do about those that hold the lock and do not answer."""
    if not found:
        return f"as root, `fuser {lock.path}` names the processes; they leave when their requests are over"
    return (
        f"{holders.spell(found)} has its lock; workers leave when their requests are over, and what an application "
        "has started leaves when it is killed"
    )
