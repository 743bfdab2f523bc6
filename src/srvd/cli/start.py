"""`srvd start`: from what the command line says to a running daemon.

Knows no flags: what they said is in `Asked`.
"""

from __future__ import annotations

from srvd.cli.flags import Asked
from srvd.config.source import Source

__all__ = ["start"]


def start(asked: Asked) -> int:
    """Run the daemon; its exit code. Raises `SrvdError` when it cannot even begin."""
    source = Source.find(asked.path, asked.given)
    config = source.read()
    # Here, because the daemon is what makes a start slow: no other command should wait for it.
    from srvd.daemon.entry.start import run

    return run(config, source, daemonize=asked.daemonize)
