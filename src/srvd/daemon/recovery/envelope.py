"""Envelope of the recovery state: boot id, start times of the processes, inodes of the descriptors.

They tell whether the pids and descriptors in the state are still the same ones. Reads no file and looks for no process:
`state_file.py` reads the bytes, `former.py` looks for the processes.
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
"""Identifies a shared descriptor: its kind (a constant of `fds`) and its inode number, unique within the kind."""


class Envelope(Record):
    boot: str  # boot id of the machine: pids and monotonic times are valid within one boot
    starts: dict[str, int]  # start time of each process, by `name_of`
    inodes: dict[str, int]  # inodes of the shared descriptors, by their names in the table
    sums: dict[str, int]  # checksums of certificates, by listener
    state: bytes  # made by `handover.pack`

    def marks(self) -> dict[str, Mark]:
        """Return the marks of the shared descriptors, by name."""
        return {name: (fds.MEMFD if name == BELL else fds.SOCKET, inode) for name, inode in self.inodes.items()}


def pack(envelope: Envelope) -> bytes:
    return bytes(msgpack.packb(list(envelope)))


def unpack(data: bytes) -> Envelope:
    """Read what `pack` returned. Raises `Unsupported`."""
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
    """Return the id of this boot (random(4)); "" where /proc shows only processes (proc(5), subset=pid).

    Without the id, pid, start time and lock still identify the processes; the id only saves looking for them.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def name_of(member: Member) -> str:
    """Return the name of the member in the descriptor table and in `Envelope.starts`."""
    return f"{'worker' if isinstance(member, WorkerId) else 'zygote'} {member}"


def sums(config: Config) -> dict[str, int]:
    """Return a checksum of each listener's certificates, to detect changes."""
    return {name: zlib.crc32(msgpack.packb(material.pack(one))) for name, one in config.tls.items()}
