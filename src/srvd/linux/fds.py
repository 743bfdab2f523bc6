"""File descriptors that travel: links (SOCK_SEQPACKET pairs) between processes, and memfds.

Knows no message: it carries datagrams and descriptors; `wire.family` says what they mean.
"""

from __future__ import annotations

import array
import fcntl
import os
import select
import signal
import socket
from collections.abc import Iterable, Sequence

from srvd.errors import BadFrame

__all__ = ["FDS_LIMIT", "close_all", "kill_at_end", "link_pair", "memfd", "receive", "send"]

FDS_LIMIT = 253
"""The most descriptors one datagram carries: SCM_MAX_FD of unix(7)."""

_INT = array.array("i").itemsize


def link_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a new link: datagrams in order, and an end of file when the other side is gone. Raises `OSError`."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(link: socket.socket, datagram: bytes, fds: Sequence[int] = (), *, wait: bool = False) -> bool:
    """Send one datagram, and descriptors with it (they stay open here too). Never blocks unless asked to `wait`.

    False: the link is full, nothing was sent. Raises `OSError` when the other side is gone (EPIPE), or too many
    descriptors are on their way (ETOOMANYREFS).
    """
    flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
    cargo = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        link.sendmsg([datagram], cargo, flags)
    except BlockingIOError:
        return False
    return True


def receive(
    link: socket.socket, limit: int, most_fds: int = 0, *, wait: bool = False
) -> tuple[bytes, list[int]] | None:
    """The next datagram and its descriptors (close-on-exec); `(b"", [])` at the end of file; None: there is none now.

    Descriptors are all there or none: if they are more than `most_fds`, or too many are open here (EMFILE), those that
    came are closed. Raises `BadFrame` for a datagram longer than `limit`; `OSError` for what else may go wrong.
    """
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    space = socket.CMSG_SPACE(most_fds * _INT) if most_fds else 0
    try:
        datagram, cargo, outcome, _ = link.recvmsg(limit, space, flags)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        # The other side ended with something of ours unread. The kernel says so once, and before it gives out what
        # the other side said last: unix(7), ECONNRESET.
        datagram, cargo, outcome, _ = link.recvmsg(limit, space, flags)
    fds = array.array("i")
    for level, kind, data in cargo:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _INT])
    # CMSG_SPACE rounds up, so one descriptor more than asked for may have come through without a truncation.
    if outcome & socket.MSG_CTRUNC or len(fds) > most_fds:
        close_all(fds)
        del fds[:]
    if outcome & socket.MSG_TRUNC:
        close_all(fds)
        raise BadFrame(f"receive a datagram: it is over {limit} bytes; the link is closed")
    return datagram, fds.tolist()


def close_all(fds: Iterable[int]) -> None:
    """Close every one of them; those that are closed already are left alone."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:  # EBADF: an application that closes descriptors it does not own got here first
            continue


def memfd(name: str, data: bytes) -> int:
    """A descriptor of an anonymous file with this content, read from its beginning. Raises `OSError`."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def kill_at_end(link: socket.socket, *, on: bool = True) -> None:
    """Have the kernel kill this process (SIGKILL) as soon as the link ends or anything arrives on it; or stop that.

    For a process that is about to run foreign code which may never come back to read the link: fcntl(2), F_SETSIG.
    """
    flags = fcntl.fcntl(link, fcntl.F_GETFL)
    if not on:
        fcntl.fcntl(link, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        return
    fcntl.fcntl(link, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(link, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(link, fcntl.F_SETFL, flags | os.O_ASYNC)
    # What ended before the flag was set raises no signal.
    poll = select.poll()
    poll.register(link, select.POLLIN)
    if poll.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)
