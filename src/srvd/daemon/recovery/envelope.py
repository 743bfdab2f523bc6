"""What the state file says beside the state itself: which boot, which processes and descriptors it speaks of.

Reads no file and finds nobody: `state_file.py` has the bytes, `adopt.py` looks for those who are named.
"""

from __future__ import annotations

import zlib

import msgpack

from srvd.config.settings import Config
from srvd.daemon.children.commons import BELL
from srvd.errors import Unsupported
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds
from srvd.record import Record
from srvd.tls import material

__all__ = ["Envelope", "Mark", "Member", "boot_id", "mark_of", "name_of", "pack", "sums", "unpack"]

Member = WorkerId | GenerationId

Mark = tuple[str, int]
"""By what a shared descriptor is known again: its kind, by `fds`, and its inode. Each kind counts apart."""


class Envelope(Record):
    boot: str  # of the machine: pids and clocks are good for one
    starts: dict[str, int]  # start_time of each process, by its name among the kept
    inodes: dict[str, int]  # of the other descriptors, by theirs
    sums: dict[str, int]  # of certificates, by listener
    state: bytes  # of `handover.py`

    def marks(self) -> dict[str, Mark]:
        """Of the descriptors that are shared, by name."""
        return {name: (fds.MEMFD if name == BELL else fds.SOCKET, inode) for name, inode in self.inodes.items()}


def pack(will: Envelope) -> bytes:
    return bytes(msgpack.packb(list(will)))


def unpack(data: bytes) -> Envelope:
    """Raises `Unsupported`."""
    try:
        boot, starts, inodes, sums, state = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, OverflowError) as exc:
        raise Unsupported(f"read the state: it is none ({exc!r})") from exc
    tables = all(
        isinstance(table, dict) and all(type(number) is int for number in table.values())
        for table in (starts, inodes, sums)
    )
    if not tables or BELL not in inodes or not isinstance(boot, str) or not isinstance(state, bytes):
        raise Unsupported("read the state: it does not fit")
    return Envelope(boot, starts, inodes, sums, state)


def mark_of(fd: int) -> Mark:
    return fds.kind(fd), fds.inode(fd)


def boot_id() -> str:
    """Names this run of the kernel (random(4)); "" where /proc shows processes alone (proc(5), subset=pid).

    Then pid, start and lock have to tell who somebody is, and they do: this only spares the looking.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def name_of(member: Member) -> str:
    """As its process is called among the kept."""
    return f"{'worker' if isinstance(member, WorkerId) else 'zygote'} {member}"


def sums(config: Config) -> dict[str, int]:
    """A number for the certificates of each listener, by which it is seen that they have changed."""
    return {name: zlib.crc32(msgpack.packb(material.pack(one))) for name, one in config.tls.items()}
