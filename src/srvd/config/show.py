"""Writes a configuration with the origin of each value and without secrets: as TOML for people, as a map for programs.

Reads nothing and decides nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from srvd.config import values
from srvd.config.settings import Config, DaemonSettings, ListenerSettings, PoolSettings, Setting, declared
from srvd.record import Record

__all__ = ["HIDDEN", "as_map", "as_toml", "in_force"]

HIDDEN: Final = "***"
"""Stands for a secret."""


class _Shown(Record):
    name: str
    setting: Setting
    value: Any
    origin: str


def as_toml(config: Config) -> str:
    """Returns a file that sets the same, each value with its origin in a comment; lines with secrets are comments."""
    lines = [f"# in force with {config.path}" if config.path else "# in force without a file"]
    for table, settings in _tables(config):
        lines += ["", f"[{table}]"]
        pairs = [
            (f"{one.name} = {values.show(one.setting.kind, one.value)}".replace("${", "$${"), one.origin)
            for one in settings
        ]
        # As a comment: *** is not the value.
        pairs = [(f"# {text}" if HIDDEN in text and one.setting.secret else text, origin)
                 for (text, origin), one in zip(pairs, settings, strict=True)]  # fmt: skip
        width = min(40, max(len(text) for text, _ in pairs))
        lines += [f"{text:{width}}  # {origin}" for text, origin in pairs]
    return "\n".join(lines) + "\n"


def as_map(config: Config) -> dict[str, Any]:
    """Returns the same as a map; times are in seconds, sizes in bytes."""
    return {
        "file": config.path,
        "settings": [
            {
                "key": f"{table}.{one.name}",
                "value": _plain(one.value),
                "unit": values.unit(one.setting.kind),
                "origin": one.origin,
                "help": one.setting.help,
            }
            for table, settings in _tables(config)
            for one in settings
        ],
        "warnings": list(config.warnings),
    }


def in_force(current: Config, pools: Mapping[str, Config]) -> Config:
    """Returns `current`, with the settings that the workers of each pool were started with.

    The origin of a setting says so if the file has another value.
    """
    settings, origins = dict(current.pools), dict(current.origins)
    for name, made_from in pools.items():
        wanted = current.pools.get(name)
        if made_from is current or name not in made_from.pools or wanted is None:
            continue
        held = settings[name] = made_from.pools[name]
        for field, setting in declared(PoolSettings).items():
            key = f"pools.{name}.{field}"
            origins[key] = current.origins[key]
            if getattr(held, field) != getattr(wanted, field):
                meant = HIDDEN if setting.secret else values.show(setting.kind, getattr(wanted, field))
                origins[key] += f" (it says {meant}, and waits for a reload of {name})"
    return current._replace(pools=settings, origins=origins)


def _tables(config: Config) -> Iterator[tuple[str, list[_Shown]]]:
    for table in ("daemon", "control"):
        known = declared(DaemonSettings)
        own = {name: setting for name, setting in known.items() if (setting.table or "daemon") == table}
        yield table, _shown(table, own, config.daemon._asdict(), config.origins)
    for name, listener in config.listeners.items():
        table = f"listeners.{name}"
        yield table, _shown(table, declared(ListenerSettings), listener._asdict(), config.origins)
    for name, pool in config.pools.items():
        table = f"pools.{name}"
        yield table, _shown(table, declared(PoolSettings), pool._asdict(), config.origins)


def _shown(
    table: str, known: Mapping[str, Setting], held: Mapping[str, Any], origins: Mapping[str, str]
) -> list[_Shown]:
    return [
        _Shown(name, setting, _hidden(held[name]) if setting.secret else held[name], origins[f"{table}.{name}"])
        for name, setting in known.items()
    ]


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict.fromkeys(value, HIDDEN)
    return HIDDEN if value else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
