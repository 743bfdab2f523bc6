"""Takes from a pool's settings what the core decides by.

Reads no file: `load.py` and `source.py` do.
"""

from __future__ import annotations

from srvd.config.settings import PoolSettings
from srvd.core.model import PoolSpec, Strategy

__all__ = ["spec_of"]


def spec_of(pool: PoolSettings) -> PoolSpec:
    """Returns the part of a pool's settings that the core decides by."""
    return PoolSpec(
        pool.name,
        workers=pool.workers,
        boot_timeout=pool.boot_timeout,
        drain_timeout=pool.drain_timeout,
        request_timeout=pool.request_timeout,
        threads=pool.threads,
        max_rss=pool.max_rss,
        health=pool.health,
        health_timeout=pool.health_timeout,
        warm=bool(pool.warm),
        bake=pool.bake,
        bake_errors=pool.bake_errors,
        rollback_window=pool.rollback_window,
        strategy=Strategy(pool.strategy),
        developed=pool.reload != "off",
    )
