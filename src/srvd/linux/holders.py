"""Finds the processes that hold a listening socket or the lock of a file, so that a refusal can name them.

Used only when an address is in use, or when a dead daemon has left processes that do not answer: each search reads the
descriptors of every process that /proc shows. Decides nothing.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable

from srvd.linux.processes import procfs
from srvd.linux.sockets import Address
from srvd.record import Record

__all__ = ["Holder", "holders", "lockers", "spell"]

_LISTENS = "0A"  # TCP_LISTEN in /proc/net/tcp
_UNIX_LISTENS = "00010000"  # __SO_ACCEPTCON in the flags of /proc/net/unix
_MOST = 4  # that a message names
_INFO = 1 << 14


class Holder(Record):
    pid: int
    title: str  # its command line, as `ps` shows it, without control characters
    user: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.title}, user {self.user})"


def spell(found: list[Holder]) -> str:
    """Returns the first holders as text for a message: "pid 4711 (sleep 777, user shop), pid …"; "" without holders."""
    return ", ".join(map(str, found[:_MOST])) + ", …" * (len(found) > _MOST)


def holders(address: Address) -> list[Holder]:
    """Returns the processes that listen at this address, or at the same port, except those that /proc does not show
    (other users').
    """
    wanted = {f"socket:[{inode}]" for inode in _inodes(address)}
    return _search(lambda link, info: link in wanted) if wanted else []


def lockers(file: int) -> list[Holder]:
    """Returns the processes that hold a shared or exclusive lock (flock(2)) of the file behind this descriptor, except
    this process and those that /proc does not show.

    Reads /proc/PID/fdinfo and does not touch the file. fdinfo shows a lock even if the process that took it has ended.
    """
    name = os.path.basename(os.readlink(f"/proc/self/fd/{file}"))
    inode = f":{os.fstat(file).st_ino}"

    def has_it(link: str, info: str) -> bool:
        return os.path.basename(link) == name and any(
            line.startswith("lock:") and "FLOCK" in line and any(word.endswith(inode) for word in line.split())
            for line in _read(info).splitlines()
        )

    return _search(has_it)


def _search(has_it: Callable[[str, str], bool]) -> list[Holder]:
    """Returns the processes with a descriptor for which `has_it` is true; `has_it` gets the target of the descriptor's
    link, and the path of its fdinfo.
    """
    pids = sorted(int(name) for name in _names("/proc") if name.isdecimal())
    return [Holder(pid, _title(pid), _user(pid)) for pid in pids if pid != os.getpid() and _has(pid, has_it)]


def _has(pid: int, has_it: Callable[[str, str], bool]) -> bool:
    for name in _names(f"/proc/{pid}/fd"):
        try:
            if has_it(os.readlink(f"/proc/{pid}/fd/{name}"), f"/proc/{pid}/fdinfo/{name}"):
                return True
        except OSError:  # closed meanwhile, or its process has ended
            continue
    return False


def _inodes(address: Address) -> set[str]:
    if address.kind == "unix":
        rows = _rows("/proc/net/unix")
        return {row[6] for row in rows if len(row) > 7 and row[3] == _UNIX_LISTENS and row[7] == address.host}
    port = f":{address.port:04X}"
    rows = _rows("/proc/net/tcp") + (_rows("/proc/net/tcp6") if socket.has_ipv6 else [])
    return {row[9] for row in rows if len(row) > 9 and row[3] == _LISTENS and row[1].endswith(port)}


def _rows(path: str) -> list[list[str]]:
    try:
        with open(path, errors="surrogateescape") as file:
            return [line.split() for line in file]
    except OSError:
        return []


def _read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(_INFO).decode("ascii", "replace")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _title(pid: int) -> str:
    return procfs.described(pid).removesuffix(f" (pid {pid})") or "?"


def _user(pid: int) -> str:
    uid = procfs.uid(pid)
    if uid < 0:
        return "?"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
