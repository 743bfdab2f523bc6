"""The state of a daemon as bytes: all that the next program needs to be the same daemon, except descriptors.

Descriptors are passed beside the state, by name (`fd_table.py`). `upgrade/replace.py` and `recovery/` transport both;
`entry/rebuild.py` makes a daemon from them.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgpack

from srvd.config.settings import Config
from srvd.config.source import Spelled
from srvd.core.model import OpId, Revision
from srvd.core.state import snapshot
from srvd.core.state.codec import Formerly, Misfit, codec
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.performer import Family
from srvd.daemon.control import server
from srvd.daemon.family.lock import FamilyLockState
from srvd.daemon.listeners import Listening
from srvd.daemon.upgrade.program import Program
from srvd.errors import Unsupported
from srvd.ids import WorkerId
from srvd.linux.systemd import Unit
from srvd.record import Record
from srvd.wire import links

__all__ = ["VERSION", "Handover", "Shell", "pack", "read"]

VERSION = 2
"""Version of the state without the core's part, by the rules of `core/state/snapshot.py`. 1: had one scoreboard."""

_RESTART = "this upgrade needs a restart"


class Shell(Record):
    """The state of all parts but the core. Contains secrets: keys of certificates, variables of pools."""

    version: str  # of srvd
    protocol: int  # version that the living zygotes and workers speak: `wire/links.py`
    program: Program
    source: Spelled
    daemonized: bool
    began: float  # time of the daemon's first start, monotonic seconds
    configs: dict[Revision, Config]
    current: Revision
    listening: Listening
    family: Family
    overdue: dict[WorkerId, float]
    control: server.ControlState
    unit: Unit  # what the service manager passed at the start
    stored: tuple[str, ...]  # names of the descriptors in its store
    lock: Annotated[FamilyLockState, Formerly("bond")] = FamilyLockState("", "")  # empty: from a version without it
    rejects: Annotated[
        tuple[int, ...], Formerly("strays")
    ] = ()  # pids of processes that were sent away, and may still live


class Handover(Record):
    house: SupervisorState
    shell: Shell


def pack(handover: Handover, ended: dict[OpId, Any] | None = None) -> bytes:
    """Return the state as bytes for `read` of this version or a later one. `ended` as for `snapshot.dump`."""
    plain = {
        "version": VERSION,
        "core": snapshot.dump(handover.house, ended),
        "shell": codec(Shell).dump(handover.shell),
    }
    return bytes(msgpack.packb(plain, unicode_errors="surrogateescape"))


def read(data: bytes) -> Handover:
    """Read what `pack` returned. Raises `Unsupported`: no state, or state or living family have another version."""
    try:
        plain = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogateescape")
        version = plain["version"]
    except (ValueError, TypeError, LookupError) as exc:
        raise Unsupported(f"read the state: it is none ({exc!r})") from exc
    if version != VERSION:
        raise Unsupported(
            f"read the state: it is of version {version!r}, this program reads version {VERSION}", hint=_RESTART
        )
    house = snapshot.load(plain.get("core"))
    try:
        shell: Shell = codec(Shell).load(plain.get("shell"))
    except Misfit as misfit:
        raise Unsupported(f"read the state: {misfit}; it was written by another program") from misfit
    if shell.protocol != links.PROTOCOL:
        raise Unsupported(
            f"the workers that run speak version {shell.protocol} of the family's messages, "
            f"this program speaks {links.PROTOCOL}",
            hint=_RESTART,
        )
    return Handover(house, shell)
