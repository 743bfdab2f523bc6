"""Reads the configuration anew for a reload: files, addresses and memory, as far as they can be tried beforehand.

Brings nothing into force: the core decides, and `effects.py` does.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from srvd.config.adapt.lasting import with_lasting
from srvd.config.pool_spec import spec_of
from srvd.config.settings import Config
from srvd.core.events import ConfigRead, ConfigRefused
from srvd.core.model import ErrorCode, Fault, Headroom, OpId, Revision
from srvd.daemon.dispatch.configs import Configs
from srvd.daemon.listeners import Listeners, named
from srvd.errors import SrvdError
from srvd.log import Log

__all__ = ["ConfigReader", "Measure"]

Measure = Callable[[list[str]], tuple[tuple[str, Headroom], ...]]
"""The memory that a reload would find, for each pool of these names."""


class ConfigReader:
    """`read` reads files, variables and flags anew. Raises `SrvdError`."""

    def __init__(
        self, configs: Configs, read: Callable[[], Config], measure: Measure, listeners: Listeners, log: Log
    ) -> None:
        self._configs = configs
        self._read = read
        self._measure = measure
        self._listeners = listeners
        self._log = log

    def read(self, op: OpId) -> ConfigRead | ConfigRefused:
        """Read and check the configuration and bind the addresses that are new; keep it under a revision of its own."""
        configs = self._configs
        revision = Revision(max(configs.configs) + 1)
        try:
            config = with_lasting(configs.config, self._read())
            headroom = self._measure(list(config.pools))
            warnings = self._listeners.prepare(revision, config.listeners)
        except SrvdError as exc:
            exc = named(exc)
            proof = str(exc.detail.get("traceback", ""))
            return ConfigRefused(op, Fault(ErrorCode(exc.code), exc.message, exc.hint, "config", traceback=proof))
        except Exception as exc:  # the operation ends here: left open, it would keep every later reload waiting
            self._log.error(f"read the configuration: a bug in srvd: {exc!r}\n{traceback.format_exc()}")
            return ConfigRefused(
                op, Fault(ErrorCode.INTERNAL, f"read the configuration: {exc!r}; see the log", step="config")
            )
        for warning in (*config.warnings, *warnings):
            self._log.warning(warning)
        configs.add(revision, config)
        specs = tuple(spec_of(pool) for pool in config.pools.values())
        return ConfigRead(op, revision, specs, headroom, (*config.warnings, *warnings))
