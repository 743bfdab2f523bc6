"""What `reload` changes in the other settings: a pool under development has one worker, and no limits of production.

Reads nothing and starts nothing. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from srvd.config.settings import Config, PoolSettings

__all__ = ["BEGUN", "OFF", "SAFE", "adapted", "switched_off"]

OFF: Final = "off"
BEGUN: Final = "_SRVD_DEVELOPMENT"
"""The variable that a daemon has which was started with `reload`; a later reload of another one leaves it out."""

SAFE: Final = "safe"

_FORCED: Final[dict[str, Any]] = {
    "workers": 1,
    "request_timeout": 0.0,  # a request may be in a debugger
    "boot_timeout": 3600.0,  # the same at import
    "keepalive_timeout": 0.0,  # a request on an old connection would be answered by the old code
    "bake": 0.0,
    "rollback_window": 0.0,
    "orphan_timeout": 0.0,
    "health": "",  # what is wrong is shown to the browser
    "warm": (),
    "max_requests": 0,
    "max_age": 0.0,
    "max_rss": 0,
}
_UNLESS_SET: Final[dict[str, Any]] = {"drain_timeout": 3.0, "access_log": "-"}


def adapted(config: Config, *, again: bool = False) -> Config:
    """Returns the configuration with the values that development needs, with a warning for each number of workers that
    was asked for, unless it is read `again`.
    """
    if not config.developed:
        return config
    origins, pools, warnings = dict(config.origins), {}, list(config.warnings)
    for name, pool in config.pools.items():
        pools[name] = pool
        if pool.reload != OFF:
            where = origins[f"pools.{name}.workers"]
            if pool.workers > 1 and where != "default" and not again:
                warnings.append(f"{where}: {pool.workers} workers are not started: with reload, pool {name} has one")
            pools[name] = _adapted(pool, origins)
    daemon = config.daemon
    if origins["daemon.log_level"] == "default":
        daemon = daemon._replace(log_level="warning")
        origins["daemon.log_level"] = "reload"
    return config._replace(daemon=daemon, pools=pools, origins=origins, warnings=tuple(warnings))


def _adapted(pool: PoolSettings, origins: dict[str, str]) -> PoolSettings:
    free = {key: value for key, value in _UNLESS_SET.items() if origins[f"pools.{pool.name}.{key}"] == "default"}
    values = _FORCED | free
    for key, value in values.items():
        if getattr(pool, key) != value:
            origins[f"pools.{pool.name}.{key}"] = "reload"
    return pool._replace(**values)


def switched_off(config: Config) -> Config:
    """Returns the configuration without `reload`, for a daemon that was started without."""
    warnings = list(config.warnings)
    pools = {}
    for name, pool in config.pools.items():
        if pool.reload != OFF:
            where = config.origins[f"pools.{name}.reload"]
            warnings.append(
                f"{where}: reload is for development, and begins at a start: it has no effect in pool {name}"
            )
        pools[name] = pool._replace(reload=OFF)
    return config._replace(pools=pools, warnings=tuple(warnings))
