"""What a zygote is to load, and what it was before: the message of the daemon with its descriptors, the process at its
start.

Loads nothing.
"""

from __future__ import annotations

import os
import socket
import sys

from srvd.errors import BadFrame, LoadFailed
from srvd.linux import fds
from srvd.record import Record
from srvd.wire import links
from srvd.worker.supervision.reconnect import Home

__all__ = [
    "BELL",
    "BOARD",
    "HOLD",
    "STACKS",
    "LoadJob",
    "Origin",
    "hear",
    "home_of",
    "misunderstood",
    "say_failed",
    "understand",
]

BOARD, STACKS, BELL, HOLD = range(4)
"""Positions among the descriptors of `Load`; the listeners follow."""

_SHARED = 4


class LoadJob(Record):
    """What to load: the datagram of `Load` with its descriptors, and the notes from before an exec of the zygote."""

    datagram: bytes
    fds: list[int]
    notes: list[str]
    seconds: float  # spent loading before the exec
    fresh: bool  # there was no exec

    def listeners(self, wanted: links.Load) -> list[socket.socket]:
        return [socket.socket(fileno=fd) for fd in self.fds[_SHARED : _SHARED + len(wanted.listeners)]]


class Origin(Record):
    """The process at its start; an application may change all of it while it is loaded."""

    environ: dict[str, str]
    folder: str
    umask: int
    path: list[str]  # sys.path

    @classmethod
    def now(cls) -> Origin:
        umask = os.umask(0)
        os.umask(umask)
        return cls(dict(os.environ), _folder(), umask, list(sys.path))


def _folder() -> str:
    """The working directory; "." if it has been removed, since `chdir` may lead somewhere else."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return "."


def hear(link: socket.socket) -> LoadJob | None:
    """The first message, `Load`; None if the daemon is gone already."""
    received = fds.receive(link, links.LIMIT, fds.FDS_LIMIT, wait=True)
    if not received or not received[0]:
        return None
    return LoadJob(received[0], received[1], [], 0.0, fresh=True)


def understand(datagram: bytes) -> links.Load:
    """The message. Raises `BadFrame`."""
    wanted = links.decode(datagram, (links.Load,))
    assert isinstance(wanted, links.Load)
    if wanted.protocol != links.PROTOCOL:  # also of the scoreboard's layout
        raise BadFrame(f"read what to load: the daemon speaks version {wanted.protocol}, this zygote {links.PROTOCOL}")
    return wanted


def home_of(wanted: links.Load, passed: list[int]) -> tuple[Home | None, list[int]]:
    """The way to a next daemon, None if there is none, and the remaining descriptors. Raises `BadFrame`."""
    board, stacks, bell, hold, *rest = passed
    listeners, rest = rest[: len(wanted.listeners)], rest[len(wanted.listeners) :]
    if not wanted.rendezvous:
        return None, rest
    if len(rest) < 2:
        raise BadFrame("read what to load: the way home does not fit; the link is closed")
    lock, stderr, *rest = rest
    return Home(wanted.rendezvous, wanted.uid, lock, bell, board, tuple(listeners), stderr, stacks, hold), rest


def misunderstood(bad: BadFrame) -> LoadFailed:
    """The answer to a message of another version."""
    return LoadFailed(
        f"load with {sys.executable}: its srvd and the daemon's do not understand each other ({bad.message})",
        hint="`srvctl upgrade` if srvd was replaced; else install the daemon's version for this interpreter",
    )


def say_failed(link: socket.socket, failed: LoadFailed) -> None:
    proof = links.clip(str(failed.detail.get("traceback", "")))
    fds.send(link, links.encode(links.LoadFailed(links.clip(failed.message), failed.hint, proof)), wait=True)
