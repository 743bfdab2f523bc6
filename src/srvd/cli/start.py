"""`srvd start`: reads the configuration and runs the daemon.

Parses no flags: it is given their values as `Asked`.
"""

from __future__ import annotations

import os

from srvd.cli.flags import Asked
from srvd.config.adapt import development
from srvd.config.settings import Config
from srvd.config.source import Source

__all__ = ["start"]


def start(asked: Asked) -> int:
    """Runs the daemon and returns its exit code. Raises `SrvdError` when it cannot begin."""
    source = Source.find(asked.path, asked.given)
    config = source.read()
    if config.developed:
        return _develop(asked, source, config)
    return _run(asked, source, config)


def _run(asked: Asked, source: Source, config: Config) -> int:
    # Here, because importing the daemon is slow, and bad news on the command line should not wait for it.
    from srvd.daemon.entry.start import run

    return run(config, source, daemonize=asked.daemonize)


def _develop(asked: Asked, source: Source, config: Config) -> int:
    """Runs the daemon with a watcher beside it."""
    from srvd.cli import develop  # here, because production has no use for it

    develop.refuse(config, daemonize=asked.daemonize)
    os.environ[development.BEGUN] = "1"
    watcher = develop.begin(config)
    try:
        return _run(asked, source, config)
    finally:
        develop.end(watcher)
