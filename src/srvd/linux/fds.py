"""File descriptors that travel: links (SOCK_SEQPACKET pairs) between processes, and memfds.

Knows no message: it carries datagrams and descriptors; `wire.family` says what they mean.

A descriptor of a less trusted process is a danger before it is used. A TCP socket with SO_LINGER holds up its last
close for as long as its owner likes, a file of FUSE any close and fstat(2). So the daemon refuses descriptors where the
kernel lets it (`refuse_rights`), asks the kernel and not the file what a descriptor is (`kind`), and leaves the close
of those that it does not want to another thread (`discard`).
"""

from __future__ import annotations

import _thread
import array
import fcntl
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from select import POLLIN
from select import poll as make_poll

from srvd.errors import BadFrame

__all__ = [
    "FDS_LIMIT", "MEMFD", "OTHER", "PIPE", "SOCKET", "close_all", "close_link", "discard", "inode", "is_sealed",
    "kill_at_end", "kind", "link_pair", "memfd", "own_reader", "receive", "receive_bytes", "refuse_rights", "send",
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


def refuse_rights(link: socket.socket, *, on: bool = True) -> bool:
    """Have the kernel refuse descriptors that are sent to this socket, or not: the sender gets EPERM. What a listener
    is told holds for those who connect to it. False: the kernel cannot.
    """
    try:
        link.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, not on)
    except OSError:  # ENOPROTOOPT before Linux 6.16
        return False
    return True


def receive(
    link: socket.socket, limit: int, most_fds: int = 0, *, wait: bool = False
) -> tuple[bytes, list[int]] | None:
    """The next datagram and its descriptors (close-on-exec); `(b"", [])` at the end of file; None: there is none now.

    Descriptors are all there or none: if too many are open here (EMFILE), those that came are discarded. Raises
    `BadFrame` for a datagram longer than `limit`, or with more than `most_fds`; `OSError` for what else may go wrong.
    """
    flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
    try:
        # Room for all that can come: what does not fit the kernel closes, and this thread would wait for that.
        datagram, cargo, outcome, _ = link.recvmsg(limit, _SPACE, flags)
    except BlockingIOError:
        return None
    except ConnectionResetError:
        # The other side ended with something of ours unread. The kernel says so once, and before it gives out what
        # the other side said last: unix(7), ECONNRESET.
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
    """What a stream has, b"" at its end. Descriptors that come with it are discarded. Raises `OSError`."""
    data, cargo, _, _ = link.recvmsg(limit, _SPACE, socket.MSG_CMSG_CLOEXEC)
    for level, what, packed in cargo:
        if level == socket.SOL_SOCKET and what == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(packed[: len(packed) - len(packed) % _INT])
            discard(fds)
    return data


def kind(fd: int) -> str:
    """PIPE, SOCKET, MEMFD, or OTHER for all else: by the mount that the kernel made it on, which nobody can forge.

    Not fstat(2): it asks the file system, which may be a user's own and never answer.
    """
    return _kinds().get(_info(fd, b"mnt_id"), OTHER)


def inode(fd: int) -> int:
    """Its number; good for those that have a `kind`."""
    return os.fstat(fd).st_ino if kind(fd) else 0


def is_sealed(fd: int, size: int) -> bool:
    """Whether it is a memfd of exactly this size, for ever."""
    if kind(fd) != MEMFD:
        return False
    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted == wanted and os.fstat(fd).st_size == size
    except OSError:
        return False


def _info(fd: int, name: bytes) -> bytes:
    """One line of its fdinfo; b"" if there is none."""
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
    """The kernel's own mounts, by their number: found out from descriptors that were made here."""
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
    """The reading end of a pipe, opened anew; the former one is closed.

    Flags belong to the open file: where a worker has the same one, it could make the daemon's reads wait. Raises
    `OSError`, and then nothing was closed.
    """
    fresh = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(pipe)
    return fresh


def discard(fds: Iterable[int], patience: float = 0.0) -> None:
    """Close descriptors of somebody less trusted, whose close may take as long as that process likes.

    In a thread, not here: to set SO_LINGER first would not do, since whoever has the same open file sets it again.
    Signals stay the main thread's. Where no thread is to be had they stay open, and the process's end, which waits for
    nothing, closes them.

    patience: seconds to wait for the closes at most, where the next step is easier when they are over.
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
    """Close a link to somebody less trusted. What was sent on it and never read may hold descriptors, too."""
    if refuse_rights(link):
        link.close()
    else:
        discard([link.detach()])


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
    poll = make_poll()
    poll.register(link, POLLIN)
    if poll.poll(0):
        os.kill(os.getpid(), signal.SIGKILL)
