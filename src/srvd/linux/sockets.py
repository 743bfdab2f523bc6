"""Listening sockets: addresses as people write them, and the sockets behind them.

Accepts nothing and keeps no list; which sockets are open, and for whom, is `daemon/listeners.py`.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import stat
import struct

from srvd.errors import ConfigInvalid, SystemRefused
from srvd.linux.socket_files import PathId, unlink
from srvd.record import Record

__all__ = [
    "Address",
    "describe",
    "end",
    "families",
    "is_connected",
    "is_hidden",
    "is_shut",
    "listens",
    "open_listener",
    "parse_address",
    "seal",
    "unseal",
    "waiting",
]

_FORMS = "write HOST:PORT, [V6]:PORT, :PORT, unix:PATH, unix:@NAME or fd:N"
_HINTS = {
    errno.EADDRINUSE: "another process listens there: `ss -ltnp` names it",
    errno.EACCES: "ports below 1024 and other users' folders need a privilege",
    errno.ENOENT: "the folder of the socket has to be there: srvd does not make it",
    errno.EADDRNOTAVAIL: "this machine has no such address",
}
_SUN_PATH = 107  # unix(7): 108 bytes, the last one is NUL

# Classic BPF for TCP, whose filter sees a segment from its header on: refuse what has SYN set (flags are byte 13),
# let all else in. A filter that drops everything would also drop the last ACK of handshakes under way, whose clients
# believe to be connected, and it would be inherited by the connections that come of them.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # ldb [13]
    (0x45, 0, 1, 0x02),  # jset #SYN, next, else skip one
    (0x06, 0, 0, 0),  # ret 0: drop
    (0x06, 0, 0, 0xFFFFFFFF),  # ret all: keep
)
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h, the same on every architecture that CPython runs srvd on
_SO_DETACH_FILTER = 27
_SO_BINDTOIFINDEX = 62
_NO_INTERFACE = 0x7FFFFFFF
_TCP_CLOSE = 7  # linux/tcp_states.h; the first byte of TCP_INFO
_TCP_LISTEN = 10
_TCPI_UNACKED = struct.Struct("24xI")  # linux/tcp.h: of a listener, the length of its queue


class Address(Record):
    """Where to listen. `str()` is the way it is written, and two addresses are the same if they are equal."""

    kind: str  # "inet", "inet6", "unix", "fd"
    host: str = ""  # a name or number; a path, or "@" and an abstract name, for "unix"
    port: int = 0  # the descriptor, for "fd"

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.host}"
        if self.kind == "fd":
            return f"fd:{self.port}"
        return f"[{self.host}]:{self.port}" if self.kind == "inet6" else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address behind HOST:PORT, [V6]:PORT, :PORT (every IPv4 address), unix:PATH, unix:@NAME or fd:N.

    Port 0 lets the kernel choose. Raises `ConfigInvalid`.
    """
    scheme, colon, rest = text.partition(":")
    if rest.startswith("//") and scheme in ("tcp", "http", "https"):  # as uvicorn, Puma and Docker spell it
        bare = rest.strip("/")
        raise ConfigInvalid(f"read the address {text!r}: an address has no scheme; did you mean {bare!r}?", hint=_FORMS)
    if text.startswith("*:"):
        raise ConfigInvalid(f"read the address {text!r}: did you mean {text[1:]!r}, every address?", hint=_FORMS)
    if colon and scheme == "unix":
        return _unix(text, rest)
    if colon and scheme == "fd":
        return Address("fd", port=_number(text, rest, 1 << 20))
    host, colon, port = text.rpartition(":")
    if not colon:
        meant = f"; did you mean {':' + text!r}?" if text.isdecimal() else ""
        raise ConfigInvalid(f"read the address {text!r}: it has no port{meant}", hint=_FORMS)
    number = _number(text, port, 65535)
    if host.startswith("[") and host.endswith("]"):
        return Address("inet6", _v6(text, host[1:-1]), number)
    if ":" in host:
        raise ConfigInvalid(f"read the address {text!r}: an IPv6 address stands in brackets", hint=_FORMS)
    if any(sign in host for sign in "/[] \t"):
        raise ConfigInvalid(f"read the address {text!r}: {host!r} is no host", hint=_FORMS)
    if not host.isascii():
        try:
            host.encode("idna")  # as binding does, which fails with a TypeError
        except UnicodeError:
            raise ConfigInvalid(f"read the address {text!r}: {host!r} is no host", hint=_FORMS) from None
    return Address("inet", host or "0.0.0.0", number)  # noqa: S104 - `:8000` asks for every address


def open_listener(
    address: Address, backlog: int, mode: int, *, reuse_port: bool = False, both: bool = False
) -> socket.socket:
    """A listening socket: non-blocking, close-on-exec; a Unix socket gets `mode`, and replaces a stale one only.

    A host name is looked up and its first address taken. `reuse_port`: other processes of the same user may listen
    there, too (socket(7), SO_REUSEPORT). `both`: `[::]` serves clients of IPv4, too, if no other process has the port
    for these. Raises `SystemRefused`.
    """
    try:
        if address.kind == "fd":
            return _adopt(address.port, backlog)
        if address.kind == "unix":
            return _unix_listener(address, backlog, mode)
        return _tcp_listener(address, backlog, reuse_port=reuse_port, both=both)
    except OSError as exc:
        hint = _HINTS.get(exc.errno or 0, "")
        busy = str(address) if exc.errno == errno.EADDRINUSE else ""
        raise SystemRefused(
            f"listen on {address}: {exc.strerror or exc}; nothing was changed",
            hint=hint,
            detail={"busy": busy},
        ) from exc


def describe(listener: socket.socket) -> str:
    """Where a socket listens, in the way addresses are written, with the port the kernel chose."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    return str(Address("inet6" if listener.family == socket.AF_INET6 else "inet", name[0], name[1]))


def families(listener: socket.socket) -> str:
    """Which clients a listener on every address of IPv6 serves; "" for any other one."""
    if listener.family != socket.AF_INET6 or listener.getsockname()[0] != "::":
        return ""
    return "IPv6 only" if listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) else "IPv4 as well"


def seal(listener: socket.socket, owned: PathId | None) -> None:
    """Refuse new connections from now on; what waits in the backlog can still be accepted. For good, in every process.

    TCP: a socket that is bound to an interface which does not exist is found by no SYN, so clients are refused;
    handshakes under way complete, and what was accepted stays. Where that is denied, or other processes share the port
    (the kernel would go on giving this socket its part), a filter drops each SYN: clients try again until `end`. Unix:
    what has been shut down is refused, and the path is removed. Never to be used on a socket that another program will
    go on using (systemd's). Raises `OSError`.
    """
    if owned is not None:
        unlink(owned)
    if listener.family == socket.AF_UNIX:
        listener.shutdown(socket.SHUT_RD)  # accept(2) goes on giving what is queued
        return
    shared = listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    first, second = (_drop_syns, _hide) if shared else (_hide, _drop_syns)
    try:
        first(listener)
    except OSError:
        second(listener)


def waiting(listener: socket.socket) -> int:
    """How many connections of a TCP listener wait to be accepted. Raises `OSError`."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_UNACKED.size)
    return int(_TCPI_UNACKED.unpack(info)[0])


def _hide(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def _drop_syns(listener: socket.socket) -> None:
    """Takes CAP_NET_ADMIN in newer kernels (Linux 5d39580f68e6, in stable ones, too)."""
    program = array.array("B", b"".join(struct.pack("@HBBI", *step) for step in _DROP_SYN))
    address, _ = program.buffer_info()
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_DROP_SYN), address))


def unseal(listener: socket.socket) -> bool:
    """Let connections in again, to a socket that a former process had sealed before it was killed. False: it is of no
    use any more, because the kernel does not let us (CAP_NET_RAW), or it is a Unix socket.
    """
    if listener.family == socket.AF_UNIX:
        return not is_shut(listener)
    try:
        if is_hidden(listener):
            listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, 0)
        listener.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as exc:
        return exc.errno == errno.ENOENT  # there was no filter
    return True


def is_shut(listener: socket.socket) -> bool:
    """Whether any process has shut it down: then it accepts nobody, and for a Unix socket that is for good."""
    if listener.family != socket.AF_UNIX:
        return not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    poll = select.poll()
    poll.register(listener, select.POLLRDHUP)
    return bool(poll.poll(0))


def is_connected(listener: socket.socket) -> bool:
    """Whether a process has shut down a TCP listener and connected it elsewhere: nobody can listen on it any more."""
    if listener.family == socket.AF_UNIX:
        return False
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] not in (_TCP_CLOSE, _TCP_LISTEN)


def listens(listener: socket.socket, backlog: int) -> bool:
    """Has it listen, if it does not. False: it never will again (listen(2), EINVAL), because a process has connected
    it, even if that connection is over.
    """
    try:
        listener.listen(backlog)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return False
    return True


def is_hidden(listener: socket.socket) -> bool:
    """Whether `seal` has hidden it: no client finds it."""
    if listener.family == socket.AF_UNIX:
        return False
    return listener.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX) == _NO_INTERFACE


def end(listener: socket.socket) -> None:
    """No listener any more, in every process: one that an application left behind, with a copy of it, would otherwise
    hold the port against the next start, and clients would wait for it. What waits in the backlog is reset.
    """
    try:
        # TCP: from LISTEN to CLOSE. A resting one is there already, and without SO_REUSEADDR.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:  # ENOTCONN: it did not listen
        return


def _number(text: str, digits: str, limit: int) -> int:
    if digits.isascii() and digits.isdecimal() and len(digits) <= 7 and int(digits) <= limit:
        return int(digits)
    raise ConfigInvalid(f"read the address {text!r}: {digits!r} is no number from 0 to {limit}", hint=_FORMS)


def _v6(text: str, host: str) -> str:
    number, percent, scope = host.partition("%")
    try:
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, number)) + percent + scope
    except (OSError, UnicodeError):
        raise ConfigInvalid(f"read the address {text!r}: {host!r} is no IPv6 address", hint=_FORMS) from None


def _unix(text: str, path: str) -> Address:
    if not path or path == "@" or "\0" in path or len(os.fsencode(path)) > _SUN_PATH:
        raise ConfigInvalid(
            f"read the address {text!r}: a path of a Unix socket has 1 to {_SUN_PATH} bytes",
            hint="a shorter folder, /run/NAME for example, leaves room",
        )
    return Address("unix", path if path.startswith("@") else os.path.abspath(path))


def _tcp_listener(address: Address, backlog: int, *, reuse_port: bool, both: bool) -> socket.socket:
    try:
        return _bound(address, backlog, reuse_port=reuse_port, both=both)
    except OSError as exc:
        if not both or exc.errno != errno.EADDRINUSE:
            raise
    return _bound(address, backlog, reuse_port=reuse_port, both=False)


def _bound(address: Address, backlog: int, *, reuse_port: bool, both: bool) -> socket.socket:
    family = socket.AF_INET6 if address.kind == "inet6" else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted connections inherit it: one system call fewer for each of them.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            # Said in either way: what is not said is as bindv6only of the system has it (ipv6(7)).
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        listener.bind((address.host, address.port))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _unix_listener(address: Address, backlog: int, mode: int) -> socket.socket:
    path = address.host
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    # The mode comes with the bind; a chmod after it could hit whatever stands at the path by then. The mask is the
    # whole process's, which has one thread.
    mask = os.umask(0o777 & ~mode)
    try:
        if path.startswith("@"):
            listener.bind("\0" + path[1:])
        else:
            _make_room(path)
            listener.bind(path)
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _make_room(path: str) -> None:
    """Remove a socket that nobody listens on any more. Raises `OSError` (EADDRINUSE, EEXIST) for anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        outcome = probe.connect_ex(path)
    if outcome == errno.ECONNREFUSED:
        os.unlink(path)
    elif outcome != errno.ENOENT:  # connected, its backlog is full, another type of socket, not for us: it is in use
        raise OSError(errno.EADDRINUSE, "another process listens there")


def _adopt(fd: int, backlog: int) -> socket.socket:
    """A duplicate of an inherited socket: the descriptor itself stays, for the next configuration that names it."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
    os.set_inheritable(fd, False)
    listener = socket.socket(fileno=fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
    try:
        if listener.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTOTYPE, "it is no stream socket")
        if listener.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise OSError(errno.EAFNOSUPPORT, "it is neither an internet nor a Unix socket")
        listener.setblocking(False)
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener
