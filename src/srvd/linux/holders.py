"""Which processes have a listening socket open, so that a refusal can name them.

Asked only when an address is in use: it reads the descriptors of every process that /proc shows.
"""

from __future__ import annotations

import os
import socket

from srvd.linux.sockets import Address
from srvd.record import Record

__all__ = ["Holder", "holders"]

_LISTENS = "0A"  # TCP_LISTEN in /proc/net/tcp
_UNIX_LISTENS = "00010000"  # __SO_ACCEPTCON in the flags of /proc/net/unix
_TITLE = 80


class Holder(Record):
    pid: int
    title: str  # its command line, as `ps` shows it

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.title})"


def holders(address: Address) -> list[Holder]:
    """Those that listen at this address, or at the same port; none where /proc does not show them (other users')."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(address)}
    if not wanted:
        return []
    pids = sorted(int(name) for name in _names("/proc") if name.isdecimal())
    return [Holder(pid, _title(pid)) for pid in pids if pid != os.getpid() and _has(pid, wanted)]


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


def _has(pid: int, wanted: set[str]) -> bool:
    folder = f"/proc/{pid}/fd"
    for name in _names(folder):
        try:
            if os.readlink(f"{folder}/{name}") in wanted:
                return True
        except OSError:  # closed meanwhile, or its process has ended
            continue
    return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _title(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0").replace(b"\0", b" ")
    except OSError:
        return "?"
    return words[:_TITLE].decode("utf-8", "backslashreplace")
