"""Finds what loading an application left in the process: what a fork would break, and what it would share.

Judges nothing by name: a thread is a task of the kernel, a connection a stream socket with a peer, a timer what the
kernel lists.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress

from srvd.linux import dispositions, procfs
from srvd.linux.dispositions import Dispositions
from srvd.record import Record
from srvd.zygote import native, trial_fork

__all__ = ["Inventory", "Residue", "compare", "settle", "some_of", "take"]

_NAMED = 8  # of each kind; the rest is counted
_GRACE = 0.1  # seconds for a child to become another program
_COMM = 15  # characters of the kernel's name for a process


class Inventory(Record):
    """What is there before something is loaded."""

    tasks: frozenset[int]  # without the main thread: srvd has no other, so the interpreter's start has left them
    sockets: frozenset[str]  # "socket:[12345]": kernel's names, unlike numbers never mean another socket
    children: frozenset[int]
    dispositions: Dispositions
    wakeup: int  # the descriptor that signals are written to; -1: there is none


class Residue(Record):
    """What is there afterwards, in words: "2 threads (Thread-1 (poll), …)"."""

    loaded: list[str]  # left by what was loaded, and lost to a fork
    started: list[str]  # left by the start of the interpreter, and lost as well
    children: list[tuple[int, str]]  # processes that run, which a fork leaves alone


def take() -> Inventory:
    """What is there now."""
    tasks = frozenset(map(int, os.listdir("/proc/self/task"))) - {os.getpid()}
    children = frozenset(procfs.children(os.getpid()))
    return Inventory(tasks, frozenset(_sockets()), children, dispositions.current(), _wakeup())


def compare(before: Inventory) -> Residue:
    """What has come since `before` was taken. It may be called again after more was loaded.

    Forks once if there are threads: only then it is seen which of them are lost.
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
    """Put away what would disturb a process that forks workers: timers, handlers, blocked signals. What workers get
    back is the answer.
    """
    dispositions.clear_timers()
    signal.set_wakeup_fd(before.wakeup, warn_on_full_buffer=False)
    found = dispositions.put_away(before.dispositions)
    dispositions.clear_timers()  # a handler that was due may have set another
    return found


def _wakeup() -> int:
    fd = signal.set_wakeup_fd(-1)
    with suppress(ValueError):  # it was closed meanwhile
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
    """Whom a stream socket is connected to; None if it is not, or carries datagrams (syslog, statsd: safe to share)."""
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
    """A child that is about to become a program still looks like this process."""
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
    """A list of one text, or of none."""
    if not names:
        return []
    return [f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({some_of(sorted(names))})"]


def some_of(names: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
