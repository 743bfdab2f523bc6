"""Turns settings into the plain maps that are sent to zygotes and workers, and back.

Declares no setting: `settings.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srvd.config.settings import ListenerSettings, PoolSettings
from srvd.errors import BadFrame

__all__ = ["pack", "pack_front", "unpack"]


def pack(pool: PoolSettings) -> dict[str, Any]:
    """Returns the settings as a plain map, for `Load.settings`. Leaves out `env`, which the exec passes."""
    packed = {name: list(value) if isinstance(value, tuple) else value for name, value in pool._asdict().items()}
    del packed["env"]
    packed["rlimits"] = {name: list(pair) for name, pair in pool.rlimits.items()}
    return packed


def pack_front(listener: ListenerSettings) -> dict[str, Any]:
    """Returns what a worker has to know of a listener before it reads HTTP, as a plain map; {}: nothing."""
    if not (listener.certificate or listener.proxy_protocol or listener.trusted_proxies):
        return {}
    return {
        "proxy_protocol": listener.proxy_protocol,
        "proxy_from": list(listener.proxy_from),
        "trusted_proxies": list(listener.trusted_proxies),
        "forwarded": listener.forwarded,
    }


def unpack(packed: Mapping[str, Any]) -> PoolSettings:
    """Returns the settings from a map that `pack` made. Raises `BadFrame` for anything else."""
    defaults = pack(PoolSettings(""))
    wrong = [name for name, default in defaults.items() if type(packed.get(name)) is not type(default)]
    wrong += [name for name in packed if name not in defaults]
    if wrong:
        raise BadFrame(f"read the settings of a pool: {', '.join(wrong)} does not fit; the link is closed")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in packed.items()}
    try:
        values["rlimits"] = {name: (int(soft), int(hard)) for name, (soft, hard) in packed["rlimits"].items()}
    except (TypeError, ValueError) as exc:
        raise BadFrame("read the settings of a pool: rlimits does not fit; the link is closed") from exc
    return PoolSettings._make(values.get(name, {}) for name in PoolSettings._fields)
