"""Applies a new configuration to a running daemon: all of it but most settings of the daemon itself.

Reads and changes nothing. Pure.
"""

from __future__ import annotations

from srvd.config import values
from srvd.config.settings import Config, DaemonSettings, declared
from srvd.errors import ConfigInvalid

__all__ = ["with_lasting"]

_CHANGEABLE = ("roles",)


def with_lasting(running: Config, fresh: Config) -> Config:
    """Returns `fresh` with the daemon settings of `running`, and a warning for each that differs.

    So `srvctl config` shows what is in force, and a setting that was read without effect is named.

    Raises `ConfigInvalid` when the file had settings and now has none: mostly it is just being written. An operator
    who wants an empty file restarts the daemon.
    """
    if _says_something(running) and not _says_something(fresh):
        raise ConfigInvalid(
            f"{fresh.path}: it is empty, and was not when it was read before; nothing was changed",
            hint="write it anew; to run without it, restart without it",
        )
    started_with, wanted = running.daemon._asdict(), fresh.daemon._asdict()
    origins, warnings = dict(fresh.origins), list(fresh.warnings)
    for name, setting in declared(DaemonSettings).items():
        if name in _CHANGEABLE or wanted[name] == started_with[name]:
            continue
        key = f"{setting.table or 'daemon'}.{name}"
        kept, meant = values.show(setting.kind, started_with[name]), values.show(setting.kind, wanted[name])
        warnings.append(
            f"{origins[key]}: {key} cannot change while the daemon runs: {kept} stays in force until the next start, "
            f"{meant} was not taken over"
        )
        wanted[name], origins[key] = started_with[name], f"{origins[key]} (it says {meant}, and waits for a start)"
    return fresh._replace(daemon=DaemonSettings._make(wanted.values()), origins=origins, warnings=tuple(warnings))


def _says_something(config: Config) -> bool:
    return bool(config.path) and any(origin.startswith(f"{config.path}:") for origin in config.origins.values())
