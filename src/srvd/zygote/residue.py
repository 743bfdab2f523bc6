"""Finds what loading an application left in the process that a fork would break: threads and connections.

Judges nothing by name: a thread is a task of the kernel, a connection a stream socket with a peer.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time

from srvd.record import Record

__all__ = ["Inventory", "take", "what_came"]

_GRACE = 0.1
"""Seconds for threads that were joined to end in the kernel, too: `Thread.join` returns a moment before."""

_NAMED = 8  # of each kind; the rest is counted


class Inventory(Record):
    """The tasks and sockets of this process."""

    threads: frozenset[int]
    sockets: frozenset[str]  # "socket:[12345]": kernel's names, unlike numbers never mean another socket


def take() -> Inventory:
    """What is there now."""
    return Inventory(frozenset(_threads()), frozenset(_sockets()))


def what_came(before: Inventory) -> list[str]:
    """What is there now and was not then, in words: "2 threads (Thread-1 (poll), …)"; empty: nothing."""
    threads = _threads() - before.threads
    deadline = time.monotonic() + _GRACE
    while threads and time.monotonic() < deadline:
        time.sleep(0.005)
        threads = _threads() - before.threads
    peers = [
        peer
        for name, fd in sorted(_sockets().items())
        if name not in before.sockets and (peer := _peer(fd)) is not None
    ]
    found = []
    if threads:
        found.append(_listed("thread", sorted(map(_thread_name, threads))))
    if peers:
        found.append(_listed("connected socket", sorted(peers)))
    return found


def _threads() -> set[int]:
    return set(map(int, os.listdir("/proc/self/task")))


def _thread_name(task: int) -> str:
    threading = sys.modules.get("threading")
    if threading is not None:
        for thread in threading.enumerate():
            if thread.native_id == task:
                return str(thread.name)
    try:
        with open(f"/proc/self/task/{task}/comm", encoding="utf-8", errors="replace") as file:
            return f"{file.read().strip()}, task {task}"  # made by a library in C
    except OSError:
        return f"task {task}"


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


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} {kind}{'s' if len(names) > 1 else ''} ({', '.join(names[:_NAMED])}{more})"
