"""What a service manager tells a service when it starts it, and the datagrams by which the service answers.

sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), sd_pid_notify_with_fds(3), without libsystemd. Chooses nothing
to say: what is the case is `core/status/summary.py`'s, when it is told `daemon/systemd_notifier.py`'s.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections.abc import MutableMapping, Sequence

from srvd.errors import ConfigInvalid
from srvd.record import Record

__all__ = [
    "STORED",
    "NotifySocket",
    "Passed",
    "Unit",
    "announce",
    "clip",
    "follow",
    "read_unit",
    "spell_store_name",
    "tell",
]

STORED = "srvd/"
"""Begins the name of each descriptor that srvd itself gave to the fd store; no listener can be called so."""

_FIRST_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_MOST_FDS = 1024
_NAME_LIMIT = 255  # bytes of an FDNAME: sd_notify(3)
_SUN_PATH = 107
_STATUS_LIMIT = 2048  # bytes of a sentence: systemd drops a datagram of more than 4096, with all that is in it

_TRANSIENT = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}


class Passed(Record):
    """A descriptor that was there at the start; `name` is "" if it was given none."""

    name: str
    fd: int


class Unit(Record):
    """What the unit asks of the service, and gives to it."""

    notify: str = ""  # the address of the notify socket as $NOTIFY_SOCKET spells it; "": nobody listens
    watchdog: float = 0.0  # seconds after which silence counts as death; 0: it is not watched
    passed: tuple[Passed, ...] = ()
    store: int = 0  # how many descriptors the fd store takes

    @property
    def sockets(self) -> tuple[Passed, ...]:
        """Those of socket units."""
        return tuple(one for one in self.passed if not one.name.startswith(STORED))

    def stored(self, kind: str = "") -> dict[str, int]:
        """Those that a former process of this service left in the fd store, by their names; of one kind, or all."""
        begin = f"{STORED}{kind}/" if kind else STORED
        return {one.name: one.fd for one in self.passed if one.name.startswith(begin)}


def read_unit(environ: MutableMapping[str, str], pid: int) -> Unit:
    """What the environment says, if it was meant for the process `pid` (an inherited one says it of somebody else).

    Takes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES out of it: the descriptors are taken once. Raises `ConfigInvalid`.
    """
    words = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")}
    meant = words["LISTEN_FDS"] and words["LISTEN_PID"] == str(pid)
    passed = _passed(words["LISTEN_FDS"], words["LISTEN_FDNAMES"]) if meant else ()
    usec = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    # $FDSTORE is set by systemd itself since version 254; older ones leave that to the unit's Environment=.
    store = environ.get("FDSTORE", "")
    return Unit(
        environ.get("NOTIFY_SOCKET", ""),
        int(usec) / 1e6 if watched and _is_number(usec) else 0.0,
        passed,
        int(store) if environ.get("NOTIFY_SOCKET") and _is_number(store) else 0,  # nobody else stores
    )


def announce(unit: Unit, pid: int) -> None:
    """The service's main process is another one from now on: to be said by the one that was, before it ends."""
    tell(unit, [f"MAINPID={pid}"])


def tell(unit: Unit, lines: Sequence[str]) -> None:
    """Say something once, before there is a daemon that does."""
    if unit.notify:
        try:
            manager = NotifySocket(unit.notify)
            manager.send(lines)
            manager.close()
        except (ConfigInvalid, OSError):
            return  # the daemon will notice the same, and has a log to tell it


def clip(sentence: str) -> str:
    """As much of it as one datagram may have beside all else."""
    spelled = sentence.encode("utf-8", "replace")
    if len(spelled) <= _STATUS_LIMIT:
        return sentence
    return spelled[: _STATUS_LIMIT - 3].decode("utf-8", "ignore") + "…"


def follow(environ: MutableMapping[str, str], pid: int) -> None:
    """Make what the environment says of the process that was started hold for `pid`, which takes its place."""
    if "WATCHDOG_PID" in environ:
        environ["WATCHDOG_PID"] = str(pid)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _passed(count: str, names: str) -> tuple[Passed, ...]:
    if not _is_number(count) or int(count) > _MOST_FDS:
        raise ConfigInvalid(f"read $LISTEN_FDS: {count!r} is no number of sockets; nothing was started")
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    called = names.split(":") if names else [""] * len(fds)
    if len(called) != len(fds):
        raise ConfigInvalid(
            f"read $LISTEN_FDNAMES: {names!r} has {len(called)} names for {len(fds)} sockets; nothing was started"
        )
    for fd in fds:
        try:
            os.set_inheritable(fd, False)
        except OSError as exc:
            raise ConfigInvalid(f"take descriptor {fd} of $LISTEN_FDS: {exc.strerror}; nothing was started") from exc
    return tuple(Passed("" if name == "unknown" else name, fd) for name, fd in zip(called, fds, strict=True))


def spell_store_name(kind: str, name: str) -> str:
    """A name for the fd store, the same for the same words; "" if it would be too long: ASCII, no colon, no control."""
    plain = "".join(
        char if "!" <= char <= "~" and char not in ":%" else "".join(f"%{byte:02x}" for byte in os.fsencode(char))
        for char in name
    )
    spelled = f"{STORED}{kind}/{plain}"
    return spelled if len(spelled) <= _NAME_LIMIT else ""


class NotifySocket:
    """Where the service manager listens. Each datagram goes by the address: it may have been opened anew."""

    def __init__(self, address: str) -> None:
        """Raises `ConfigInvalid` for an address that is no Unix socket's (systemd also speaks vsock, to machines)."""
        if address[:1] not in ("/", "@") or len(os.fsencode(address)) > _SUN_PATH:
            raise ConfigInvalid(f"speak to $NOTIFY_SOCKET {address!r}: it is neither a path nor an abstract name")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, lines: Sequence[str], fds: Sequence[int] = ()) -> bool:
        """One datagram of assignments, and descriptors with it. False: it has to wait (a full queue, no memory).

        No line may have a line break in it. Raises `OSError`: nobody listens there.
        """
        cargo = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._socket.sendmsg(
                ["\n".join(lines).encode("utf-8", "replace")], cargo, socket.MSG_NOSIGNAL, self._address
            )
        except OSError as exc:
            if exc.errno in _TRANSIENT:
                return False
            raise
        return True

    def close(self) -> None:
        self._socket.close()
