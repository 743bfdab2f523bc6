"""Listening sockets: parses addresses as users write them, and opens, closes and examines the sockets.

Accepts no connection and keeps no list; `daemon/listeners.py` knows which sockets are open for which pools.
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
USUAL_PORT = 8000
"""The port of an address without one, as gunicorn and uvicorn have it."""

_SUN_PATH = 107  # unix(7): 108 bytes, the last one is NUL

# Classic BPF for TCP, whose filter sees a segment from its header on: drops segments with SYN set (flags are byte 13),
# keeps all others. A filter that drops every segment would also drop the last ACK of handshakes under way, although
# their clients take themselves for connected; and the connections made by those handshakes would inherit the filter.
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
    """Where to listen. `str()` gives the address as users write it; the same addresses are equal."""

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
    """Parses HOST:PORT, [V6]:PORT, :PORT (every IPv4 address), unix:PATH, unix:@NAME or fd:N.

    With port 0 the kernel chooses a port. A host without a port has `USUAL_PORT`. Raises `ConfigInvalid`.
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
    if text.isdecimal():
        raise ConfigInvalid(f"read the address {text!r}: did you mean {':' + text!r}?", hint=_FORMS)
    host, colon, port = text.rpartition(":")
    if text and (not colon or text.endswith("]")):
        host, port = text, str(USUAL_PORT)
    number = _number(text, port, 65535)
    if host.startswith("[") and host.endswith("]"):
        return Address("inet6", _v6(text, host[1:-1]), number)
    _check_host(text, host)
    return Address("inet", host or "0.0.0.0", number)  # noqa: S104 - `:8000` asks for every address


def _check_host(text: str, host: str) -> None:
    """Raises `ConfigInvalid` if the part of the address before its port can be no name or IPv4 address."""
    if ":" in host:
        raise ConfigInvalid(f"read the address {text!r}: an IPv6 address stands in brackets", hint=_FORMS)
    if any(sign in host for sign in "/[] \t"):
        raise ConfigInvalid(f"read the address {text!r}: {host!r} is no host", hint=_FORMS)
    if not host.isascii():
        try:
            host.encode("idna")  # as binding does, which fails with a TypeError
        except UnicodeError:
            raise ConfigInvalid(f"read the address {text!r}: {host!r} is no host", hint=_FORMS) from None


def open_listener(
    address: Address, backlog: int, mode: int, *, reuse_port: bool = False, both: bool = False
) -> socket.socket:
    """Opens a listening socket: non-blocking, close-on-exec. A Unix socket gets `mode`, and replaces a file only if
    that is a socket without a listener.

    Resolves a host name and takes its first address. `reuse_port`: other processes of the same user may listen there,
    too (socket(7), SO_REUSEPORT). `both`: `[::]` serves IPv4 clients, too, if no other process listens at the port for
    IPv4. Raises `SystemRefused`.
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
    """Returns the address of a socket as users write it, with the port that the kernel chose."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:@{path[1:]}" if path.startswith("\0") else f"unix:{path}"
    return str(Address("inet6" if listener.family == socket.AF_INET6 else "inet", name[0], name[1]))


def families(listener: socket.socket) -> str:
    """Tells in words which clients a listener at `[::]` serves; "" for a listener at any other address."""
    if listener.family != socket.AF_INET6 or listener.getsockname()[0] != "::":
        return ""
    return "IPv6 only" if listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) else "IPv4 as well"


def seal(listener: socket.socket, owned: PathId | None) -> None:
    """Refuses new connections from now on, in every process that has the socket. Connections in the backlog can still
    be accepted.

    TCP: binds the socket to an interface that does not exist. No SYN finds the socket then, so clients are refused;
    handshakes under way complete, and accepted connections stay. If the kernel denies that, or other processes share
    the port (the kernel would still give this socket its part), a filter drops each SYN: clients try again until `end`.
    Unix: shuts the socket down and removes the path. Must not be called for a socket that another program goes on using
    (systemd's). Raises `OSError`.
    """
    if owned is not None:
        unlink(owned)
    if listener.family == socket.AF_UNIX:
        listener.shutdown(socket.SHUT_RD)  # accept(2) still returns queued connections
        return
    shared = listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    first, second = (_drop_syns, _hide) if shared else (_hide, _drop_syns)
    try:
        first(listener)
    except OSError:
        second(listener)


def waiting(listener: socket.socket) -> int:
    """Returns the number of connections that wait in the backlog of a TCP listener. Raises `OSError`."""
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_UNACKED.size)
    return int(_TCPI_UNACKED.unpack(info)[0])


def _hide(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)


def _drop_syns(listener: socket.socket) -> None:
    """Attaches the filter, which needs CAP_NET_ADMIN in newer kernels (Linux 5d39580f68e6, in stable ones, too)."""
    program = array.array("B", b"".join(struct.pack("@HBBI", *step) for step in _DROP_SYN))
    address, _ = program.buffer_info()
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_DROP_SYN), address))


def unseal(listener: socket.socket) -> bool:
    """Undoes `seal` of a former process that was killed after it. Returns False if the socket is useless: the kernel
    denies it (CAP_NET_RAW), or a Unix socket was shut down.
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
    """Tells whether a process has shut the listener down. It accepts no connection then; a Unix socket never again."""
    if listener.family != socket.AF_UNIX:
        return not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    poll = select.poll()
    poll.register(listener, select.POLLRDHUP)
    return bool(poll.poll(0))


def is_connected(listener: socket.socket) -> bool:
    """Tells whether a process has shut down a TCP listener and connected it; no process can listen on it then."""
    if listener.family == socket.AF_UNIX:
        return False
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] not in (_TCP_CLOSE, _TCP_LISTEN)


def listens(listener: socket.socket, backlog: int) -> bool:
    """Makes the socket listen, if it does not. Returns False if it never can again (listen(2), EINVAL), because a
    process has connected it, even if that connection has ended.
    """
    try:
        listener.listen(backlog)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return False
    return True


def is_hidden(listener: socket.socket) -> bool:
    """Tells whether `seal` has hidden a TCP listener from clients."""
    if listener.family == socket.AF_UNIX:
        return False
    return listener.getsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX) == _NO_INTERFACE


def end(listener: socket.socket) -> None:
    """Ends the listening in every process. Otherwise a process that an application has left behind, with a copy of the
    socket, would keep the port from the next start, and clients would wait for it. Resets connections in the backlog.
    """
    try:
        # TCP: from LISTEN to CLOSE. A listener that rests is in CLOSE already, and without SO_REUSEADDR.
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
            # Set to 0 or 1 in any case: the default depends on the system's bindv6only (ipv6(7)).
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
    # The mode is set by the bind; a chmod after the bind could change another file that was put at the path meanwhile.
    # The umask holds for the whole process, which has one thread.
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
    """Removes a socket file without a listener. Raises `OSError` (EADDRINUSE, EEXIST) for any other file."""
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
    elif outcome != errno.ENOENT:  # connected, backlog full, another type of socket, no permission: it is in use
        raise OSError(errno.EADDRINUSE, "another process listens there")


def _adopt(fd: int, backlog: int) -> socket.socket:
    """Returns a duplicate of an inherited socket; the descriptor itself stays open, for the next configuration that
    names it.
    """
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
