"""The flags of `srvd start`, as the settings declare them, and what a command line says by them.

Reads no command line: `fast.py` and `app.py` do.
"""

from __future__ import annotations

from srvd.config.settings import TABLES, Setting, declared
from srvd.record import Record

__all__ = ["SHORT", "Asked", "flags"]

SHORT = {"-b": "--bind", "-w": "--workers", "-n": "--name"}
"""What fingers know from other servers, and from srvctl."""


class Asked(Record):
    """What the command line of `srvd start` says; `given` by flag, as `config/settings.py` declares it."""

    path: str | None
    given: dict[str, object]
    daemonize: bool


def flags() -> dict[str, Setting]:
    """The settings that have a flag, by flag; the application is "APP"."""
    return {one.flag: one for table in TABLES for one in declared(table).values() if one.flag}
