"""Finds what loading an application left in the process: resources that a fork would break or share.

Recognizes nothing by name: a thread is a task of the kernel, a connection is a stream socket with a peer, a timer is
what the kernel lists.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress

from srvd.linux.processes import dispositions, procfs
from srvd.linux.processes.dispositions import Dispositions
from srvd.record import Record
from srvd.zygote.safety import native, trial_fork

__all__ = ["Inventory", "Residue", "compare", "settle", "some_of", "take"]

_NAMED = 8  # of each kind; the rest is counted
_GRACE = 0.1  # seconds for a child to become another program
_COMM = 15  # characters of the kernel's name for a process


class Inventory(Record):
    """The resources of the process before something is loaded."""

    tasks: frozenset[int]  # without the main thread; srvd starts none, so the interpreter's start has left them
    sockets: frozenset[str]  # "socket:[12345]", by the kernel; unlike a descriptor's number, a name is not used again
    children: frozenset[int]
    dispositions: Dispositions
    wakeup: int  # the descriptor that signals are written to (signal.set_wakeup_fd); -1: none


class Residue(Record):
    """The resources that were left, in words: "2 threads (Thread-1 (poll), …)"."""

    loaded: list[str]  # by what was loaded; a forked child does not have them
    started: list[str]  # by the start of the interpreter; a forked child does not have them either
    children: list[tuple[int, str]]  # pid and description of processes that run; a fork leaves them alone


def take() -> Inventory:
    """The resources of the process now."""
    tasks = frozenset(map(int, os.listdir("/proc/self/task"))) - {os.getpid()}
    children = frozenset(procfs.children(os.getpid()))
    return Inventory(tasks, frozenset(_sockets()), children, dispositions.current(), _wakeup())


def compare(before: Inventory) -> Residue:
    """The resources that have been added since `before` was taken. May be called again after more was loaded.

    Forks once if there are threads, to see which of them a child lacks.
    """
    threads = trial_fork.stranded()
    names = {task: native.name_of(task) for task in threads}
    loaded = _listed("thread", [names[task] for task in threads - before.tasks])
    loaded += _listed("connected socket", _peers(before))
    loaded += _listed("timer", dispositions.timers())
    if (wakeup := _wakeup()) != before.wakeup:
        loaded.append(f"a wakeup descriptor of signals (set_wakeup_fd({wakeup}))")
    started = _listed("thread", [names[task] for task in threads & before.tasks])
    children = [(pid, _described(pid)) for pid in procfs.children(os.getpid()) if pid not in before.children]
    return Residue(loaded, started, [(pid, what) for pid, what in children if what])


def settle(before: Inventory) -> Dispositions:
    """Remove what would disturb a process that forks workers: timers, signal handlers, blocked signals.

    Returns the dispositions that the workers are given back.
    """
    dispositions.clear_timers()
    signal.set_wakeup_fd(before.wakeup, warn_on_full_buffer=False)
    found = dispositions.put_away(before.dispositions)
    dispositions.clear_timers()  # a handler that was due may have set another
    return found


def _wakeup() -> int:
    fd = signal.set_wakeup_fd(-1)
    with suppress(ValueError):  # the descriptor was closed meanwhile
        signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    return fd


def _peers(before: Inventory) -> list[str]:
    found = ((name, _peer(fd)) for name, fd in _sockets().items() if name not in before.sockets)
    return [peer for _, peer in found if peer is not None]


def _sockets() -> dict[str, int]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.stat(int(entry)).st_mode):
                found[os.readlink(f"/proc/self/fd/{entry}")] = int(entry)
        except OSError:  # the descriptor of the listing itself, closed by now
            continue
    return found


def _peer(fd: int) -> str | None:
    """The peer of a stream socket; None if there is none. Datagrams (syslog, statsd) are safe to share: None."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return None
    try:
        if sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            return None
        peer = sock.getpeername()
    except OSError:
        return None
    finally:
        sock.detach()
    if sock.family == socket.AF_UNIX:
        return f"to unix:{os.fsdecode(peer)}" if peer else "of a pair"
    return f"to {peer[0]}:{peer[1]}"


def _described(pid: int) -> str:
    """The description of a child. Until a child has become another program it looks like this process."""
    own = _title(procfs.described(os.getpid()))
    deadline = time.monotonic() + _GRACE
    while _title(what := procfs.described(pid)) == own:
        if time.monotonic() >= deadline:
            return f"a fork of the zygote (pid {pid})"
        time.sleep(0.005)
    return what


def _title(described: str) -> str:
    return described.rpartition(" (pid ")[0][:_COMM]


def _listed(kind: str, names: list[str]) -> list[str]:
    """The text about all names, as a list; empty if there are no names."""
    if not names:
        return []
    return [f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({some_of(sorted(names))})"]


def some_of(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
