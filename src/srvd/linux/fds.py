"""Passes file descriptors between processes: over links (SOCK_SEQPACKET pairs), and as memfds.

Knows no message: this module carries datagrams and descriptors; `wire.family` defines what they mean.

A descriptor of a less trusted process is a danger before it is used. A TCP socket with SO_LINGER delays its last close
for as long as its owner chose, and a file of FUSE delays any close and fstat(2). So the daemon refuses descriptors
where the kernel supports that (`refuse_rights`), asks the kernel and not the file for the kind of a descriptor
(`kind`), and closes unwanted descriptors in another thread (`discard`).
"""

from __future__ import annotations

import _thread
import array
import fcntl
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from select import POLLERR, POLLHUP, POLLIN
from select import poll as make_poll

from srvd.errors import BadFrame

__all__ = [
    "FDS_LIMIT", "MEMFD", "OTHER", "PIPE", "SOCKET", "close_all", "close_link", "discard", "has_hung_up", "inode",
    "is_sealed", "kill_at_end", "kind", "link_pair", "memfd", "own_reader", "receive", "receive_bytes", "refuse_rights",
    "send",
]  # fmt: skip

FDS_LIMIT = 253
"""The most descriptors one datagram carries: SCM_MAX_FD of unix(7)."""

PIPE = "pipe"
SOCKET = "socket"
MEMFD = "memfd"
OTHER = ""

_INT = array.array("i").itemsize
_SPACE = socket.CMSG_SPACE(FDS_LIMIT * _INT)
_SO_PASSRIGHTS = 83  # socket(7), since Linux 6.16; Python has no name for it
_INFO = 4096  # bytes of an fdinfo that are read: the lines wanted are its first ones


def link_pair() -> tuple[socket.socket, socket.socket]:
    """Returns the two ends of a new link, which delivers datagrams in order, and an end of file once the other end is
    closed. Raises `OSError`.
    """
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)


def send(link: socket.socket, datagram: bytes, fds: Sequence[int] = (), *, wait: bool = False) -> bool:
    """Sends one datagram, with descriptors (which stay open in this process, too). Blocks only if `wait` is set.

    Returns False if the link is full and nothing was sent. Raises `OSError` when the other end is closed (EPIPE), or
    too many descriptors are in transit (ETOOMANYREFS).
    """
    flags = socket.MSG_NOSIGNAL | (0 if wait else socket.MSG_DONTWAIT)
    cargo = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        link.sendmsg([datagram], cargo, flags)
    except BlockingIOError:
        return False
    return True


def refuse_rights(link: socket.socket, *, on: bool = True) -> bool:
    """Makes the kernel refuse descriptors sent to this socket (`on`), with EPERM for the sender, or accept them. The
    connections of a listener inherit its setting. Returns False if the kernel does not support it.
    """
    try:
        link.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, not on)
    except OSError:  # ENOPROTOOPT before Linux 6.16
        return False
    return True


def receive(
    link: socket.socket, limit: int, most_fds: int = 0, *, wait: bool = False
) -> tuple[bytes, list[int]] | None:
    """Returns the next datagram and its descriptors (close-on-exec); `(b"", [])` at the end of file; None if no
    datagram waits.

    Returns all descriptors of the datagram or none: if this process has too many open ones (EMFILE), the received ones
    are discarded. Raises `BadFrame` for a datagram longer than `limit`, or with more descriptors than `most_fds`;
    `OSError` for any other failure.
    """
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    try:
        # Room for as many descriptors as can arrive: the kernel would close the others, and this thread wait for it.
        datagram, cargo, outcome, _ = link.recvmsg(limit, _SPACE, flags)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        # The other process ended without reading all datagrams of this one. The kernel reports that once, before it
        # delivers the last datagrams of the other process: unix(7), ECONNRESET.
        datagram, cargo, outcome, _ = link.recvmsg(limit, _SPACE, flags)
    fds = array.array("i")
    for level, what, data in cargo:
        if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _INT])
    passed = fds.tolist()
    if outcome & socket.MSG_TRUNC or len(passed) > most_fds:
        discard(passed)
        fault = f"is over {limit} bytes" if outcome & socket.MSG_TRUNC else "brings descriptors that nobody asked for"
        raise BadFrame(f"receive a datagram: it {fault}; the link is closed")
    if outcome & socket.MSG_CTRUNC:
        discard(passed)
        passed = []
    return datagram, passed


def receive_bytes(link: socket.socket, limit: int) -> bytes:
    """Reads bytes from a stream; b"" at its end. Discards descriptors that arrive with them. Raises `OSError`."""
    data, cargo, _, _ = link.recvmsg(limit, _SPACE, socket.MSG_CMSG_CLOEXEC)
    for level, what, packed in cargo:
        if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(packed[: len(packed) - len(packed) % _INT])
            discard(fds)
    return data


def kind(fd: int) -> str:
    """Returns PIPE, SOCKET, MEMFD or OTHER, by the kernel's mount that the file belongs to, which no process can forge.

    Does not use fstat(2), which asks the file system: that one may be a user's (FUSE) and never answer.
    """
    return _kinds().get(_info(fd, b"mnt_id"), OTHER)


def inode(fd: int) -> int:
    """Returns the inode number of a pipe, socket or memfd; 0 for any other `kind`."""
    return os.fstat(fd).st_ino if kind(fd) else 0


def is_sealed(fd: int, size: int) -> bool:
    """Tells whether the descriptor is a memfd of exactly this size, sealed against shrinking and growing."""
    if kind(fd) != MEMFD:
        return False
    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted == wanted and os.fstat(fd).st_size == size
    except OSError:
        return False


def _info(fd: int, name: bytes) -> bytes:
    """Returns the value of one line in the descriptor's fdinfo; b"" if there is none."""
    try:
        file = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        lines = os.read(file, _INFO).splitlines()
    except OSError:
        return b""
    finally:
        os.close(file)
    return next((line.partition(b":")[2].strip() for line in lines if line.startswith(name + b":")), b"")


_known: dict[bytes, str] = {}


def _kinds() -> dict[bytes, str]:
    """Returns the kinds by the number of their kernel mount, found with descriptors made for the purpose."""
    if not _known:
        link, other = link_pair()
        read, write = os.pipe()
        page = os.memfd_create("srvd-kind", os.MFD_CLOEXEC)
        found = {_info(link.fileno(), b"mnt_id"): SOCKET, _info(read, b"mnt_id"): PIPE, _info(page, b"mnt_id"): MEMFD}
        close_all([link.detach(), other.detach(), read, write, page])
        found.pop(b"", None)
        _known.update(found)
    return _known


def own_reader(pipe: int) -> int:
    """Opens the reading end of a pipe anew, closes the former descriptor, and returns the new one.

    Flags belong to the open file description: a worker that shares it could make the daemon's reads block. Raises
    `OSError`, and has closed nothing then.
    """
    fresh = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(pipe)
    return fresh


def discard(fds: Iterable[int], patience: float = 0.0) -> None:
    """Closes descriptors of a less trusted process in a thread, because such a process can delay the close at will.

    Resetting SO_LINGER before the close would not help, since another process with the same open file can set it again.
    The thread takes no signals. If no thread can be started, the descriptors stay open until this process ends; that
    close does not wait.

    patience: the most seconds to wait for the closes, for a caller whose next step is easier after them.
    """
    unwanted = list(fds)
    if not unwanted:
        return
    over = _thread.allocate_lock()
    over.acquire()

    def close() -> None:
        close_all(unwanted)
        over.release()

    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        _thread.start_new_thread(close, ())
    except RuntimeError:
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    over.acquire(timeout=patience)


def close_link(link: socket.socket) -> None:
    """Closes a link to a less trusted process. Unread datagrams on the link may hold descriptors, too."""
    if refuse_rights(link):
        link.close()
    else:
        discard([link.detach()])


def close_all(fds: Iterable[int]) -> None:
    """Closes all these descriptors, and ignores those that are closed already."""
    for fd in fds:
        try:
            os.close(fd)
        except OSError:  # EBADF: an application has closed a descriptor that it does not own
            continue


def memfd(name: str, data: bytes) -> int:
    """Returns a descriptor of an anonymous file with this content, positioned at the beginning. Raises `OSError`."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def has_hung_up(fd: int) -> bool:
    """Tells whether the other side of a pipe or socket is gone; a peer that only ended its own sending is not."""
    poll = make_poll()
    poll.register(fd, 0)
    return any(mask & (POLLERR | POLLHUP) for _, mask in poll.poll(0))


def kill_at_end(link: socket.socket, *, on: bool = True) -> None:
    """Makes the kernel kill this process (SIGKILL) as soon as the link ends or a datagram arrives on it; or stops that.

    For a process about to run foreign code that may never return, so that the link is not read: fcntl(2), F_SETSIG. No
    datagram may have been read from the link: the kernel may raise the signal of its arrival later.
    """
    flags = fcntl.fcntl(link, fcntl.F_GETFL)
    if not on:
        fcntl.fcntl(link, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        return
    fcntl.fcntl(link, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(link, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(link, fcntl.F_SETFL, flags | os.O_ASYNC)
    # A link that ended before the flag was set raises no signal.
    poll = make_poll()
    poll.register(link, POLLIN)
    if poll.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)
