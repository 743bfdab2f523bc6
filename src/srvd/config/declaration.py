"""How a setting is declared, and how the declarations of a table are found.

Declares no setting: `settings.py` does.
"""

from __future__ import annotations

from typing import Any

from srvd.record import Record

__all__ = ["Setting", "declared"]


class Setting(Record):
    """Declares one setting.

    help: one sentence without a full stop.
    kind: the name of a reader in `values.KINDS`.
    flag: the flag of `srvd start` that sets it; "": none.
    table: its TOML table, where the class does not tell.
    secret: the value is never shown.
    """

    help: str
    kind: str
    flag: str = ""
    table: str = ""
    secret: bool = False


def declared(table: type[tuple[Any, ...]]) -> dict[str, Setting]:
    """Returns the settings of a table by name, in order of declaration; without the name of the pool or listener."""
    return {
        name: extra
        for name, annotation in table.__annotations__.items()
        for extra in getattr(annotation, "__metadata__", ())
        if isinstance(extra, Setting)
    }
