"""Reads the environment that a service manager gives to a service, and sends the service's datagrams to the manager.

sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), sd_pid_notify_with_fds(3), without libsystemd. Does not decide
what to send: `core/status/summary.py` decides on the content, `daemon/systemd_notifier.py` on the time.
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
"""Prefix of the name of each descriptor that srvd put into the fd store; no listener can have such a name."""

_FIRST_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_MOST_FDS = 1024
_NAME_LIMIT = 255  # bytes of an FDNAME: sd_notify(3)
_SUN_PATH = 107
_STATUS_LIMIT = 2048  # bytes of a sentence: systemd drops a whole datagram of more than 4096

_TRANSIENT = {errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS}


class Passed(Record):
    """A descriptor that the service manager passed at the start; `name` is "" if the descriptor has none."""

    name: str
    fd: int


class Unit(Record):
    """The unit's demands on the service (notify, watchdog), and the descriptors that the unit provides."""

    notify: str = ""  # the address of the notify socket as $NOTIFY_SOCKET spells it; "": there is none
    watchdog: float = 0.0  # seconds without a WATCHDOG=1 after which systemd kills the service; 0: no watchdog
    passed: tuple[Passed, ...] = ()
    store: int = 0  # how many descriptors the fd store takes

    @property
    def sockets(self) -> tuple[Passed, ...]:
        """Descriptors of socket units."""
        return tuple(one for one in self.passed if not one.name.startswith(STORED))

    def stored(self, kind: str = "") -> dict[str, int]:
        """Returns the descriptors that a former process of this service left in the fd store, by name; those of one
        `kind`, or all.
        """
        begin = f"{STORED}{kind}/" if kind else STORED
        return {one.name: one.fd for one in self.passed if one.name.startswith(begin)}


def read_unit(environ: MutableMapping[str, str], pid: int) -> Unit:
    """Reads the unit from the environment. Ignores parts that name another process than `pid`: such variables were
    inherited.

    Removes LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES from `environ`, so that descriptors are taken once. Raises
    `ConfigInvalid`.
    """
    words = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")}
    meant = words["LISTEN_FDS"] and words["LISTEN_PID"] == str(pid)
    passed = _passed(words["LISTEN_FDS"], words["LISTEN_FDNAMES"]) if meant else ()
    usec = environ.get("WATCHDOG_USEC", "")
    watched = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    # systemd sets $FDSTORE since version 254; with older versions the unit sets the variable itself (Environment=).
    store = environ.get("FDSTORE", "")
    return Unit(
        environ.get("NOTIFY_SOCKET", ""),
        int(usec) / 1e6 if watched and _is_number(usec) else 0.0,
        passed,
        int(store) if environ.get("NOTIFY_SOCKET") and _is_number(store) else 0,  # without the socket nothing is stored
    )


def announce(unit: Unit, pid: int) -> None:
    """Tells the manager that `pid` is the service's main process from now on. The former main process must call this
    before it ends.
    """
    tell(unit, [f"MAINPID={pid}"])


def tell(unit: Unit, lines: Sequence[str]) -> None:
    """Sends one datagram, for a process that runs before the daemon's notifier. Ignores failures."""
    if unit.notify:
        try:
            manager = NotifySocket(unit.notify)
            manager.send(lines)
            manager.close()
        except (ConfigInvalid, OSError):
            return  # the daemon will meet the same error, and can log it


def clip(sentence: str) -> str:
    """Cuts a sentence to the length that fits into a datagram beside the other assignments."""
    spelled = sentence.encode("utf-8", "replace")
    if len(spelled) <= _STATUS_LIMIT:
        return sentence
    return spelled[: _STATUS_LIMIT - 3].decode("utf-8", "ignore") + "…"


def follow(environ: MutableMapping[str, str], pid: int) -> None:
    """Rewrites the variables that name the started process, so that they hold for `pid`, which takes its place."""
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
    """Returns a name for the fd store, which is ASCII without colons and control characters; the same for the same
    arguments; "" if the name would be too long.
    """
    plain = "".join(
        char if "!" <= char <= "~" and char not in ":%" else "".join(f"%{byte:02x}" for byte in os.fsencode(char))
        for char in name
    )
    spelled = f"{STORED}{kind}/{plain}"
    return spelled if len(spelled) <= _NAME_LIMIT else ""


class NotifySocket:
    """A socket that sends to the service manager. It is not connected: each datagram is sent to the address, because
    the manager may have opened its socket anew.
    """

    def __init__(self, address: str) -> None:
        """Raises `ConfigInvalid` if the address is not one of a Unix socket (systemd also uses vsock, for machines)."""
        if address[:1] not in ("/", "@") or len(os.fsencode(address)) > _SUN_PATH:
            raise ConfigInvalid(f"speak to $NOTIFY_SOCKET {address!r}: it is neither a path nor an abstract name")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def send(self, lines: Sequence[str], fds: Sequence[int] = ()) -> bool:
        """Sends one datagram of assignments, with descriptors. Returns False if the datagram has to wait (a full queue,
        no memory).

        No line may contain a line break. Raises `OSError` if no process listens at the address.
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
