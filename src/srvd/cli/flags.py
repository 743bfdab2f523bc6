"""The flags of `srvd start`, as the settings declare them, and the values that a command line gives them.

Reads no command line: `fast.py` and `app.py` do.
"""

from __future__ import annotations

from srvd.config.settings import TABLES, Setting, declared
from srvd.record import Record

__all__ = ["SHORT", "Asked", "flags"]

SHORT = {"-b": "--bind", "-w": "--workers", "-n": "--name"}
"""Short flags, the same as those of other servers and of srvctl."""


class Asked(Record):
    """The command line of `srvd start`. `given`: values by flag, as `config/settings.py` declares it."""

    path: str | None
    given: dict[str, object]
    daemonize: bool


def flags() -> dict[str, Setting]:
    """Returns the settings that have a flag, by flag; the application's is "APP"."""
    return {one.flag: one for table in TABLES for one in declared(table).values() if one.flag}
