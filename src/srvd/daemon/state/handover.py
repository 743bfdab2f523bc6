"""The state of a daemon as bytes: packed for the next program, and read by it, or refused.

What belongs to it is declared in `model.py`. Descriptors are passed beside the state, by name (`fd_table.py`).
`upgrade/replace.py` and `recovery/` transport both; `entry/rebuild.py` makes a daemon from them.
"""

from __future__ import annotations

from typing import Any

import msgpack

from srvd.core.model import OpId
from srvd.core.state import snapshot
from srvd.core.state.codec import Misfit, codec
from srvd.daemon.state.model import Handover, Shell
from srvd.errors import Unsupported
from srvd.wire import links

__all__ = ["VERSION", "pack", "read"]

VERSION = 2
"""Version of the state without the core's part, by the rules of `core/state/snapshot.py`. 1: had one scoreboard."""

_RESTART = "this upgrade needs a restart"


def pack(handover: Handover, ended: dict[OpId, Any] | None = None) -> bytes:
    """Return the state as bytes for `read` of this version or a later one. `ended` as for `snapshot.dump`."""
    plain = {
        "version": VERSION,
        "core": snapshot.dump(handover.state, ended),
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
    state = snapshot.load(plain.get("core"))
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
    return Handover(state, shell)
