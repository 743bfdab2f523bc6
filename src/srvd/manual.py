"""The manual that is installed with the program: settings, from their declarations, and pages, from files.

Prints nothing, and knows no command.
"""

from __future__ import annotations

from pathlib import Path

from srvd.config import values
from srvd.config.load import variables
from srvd.config.settings import DaemonSettings, ListenerSettings, PoolSettings, Setting, declared

__all__ = ["explain", "pages", "settings"]

_PACKAGE = Path(__file__).parent
_PLACES = (_PACKAGE / "pages", _PACKAGE.parent.parent / "docs")  # of a wheel; of a working copy
_FOLDERS = ("howto", "reference", "explain")
_TABLES = (("daemon", DaemonSettings), ("listeners", ListenerSettings), ("pools", PoolSettings))


def pages() -> list[str]:
    """Returns the names of the pages."""
    return sorted(_pages())


def settings() -> list[str]:
    """Returns the names of the settings."""
    return sorted({name for _, table in _TABLES for name in declared(table)})


def explain(topic: str) -> str:
    """Returns the text about the setting or page of that name; "" if there is none. Accepts TABLE.SETTING as well."""
    name = topic.rpartition(".")[2].removeprefix("SRVD_").lower().replace("-", "_")
    found = [
        _describe(title, name, setting, table._field_defaults[name])
        for title, table in _TABLES
        for known, setting in declared(table).items()
        if known == name
    ]
    page = _pages().get(topic.removesuffix(".md"))
    return "\n".join([*found, *([_without_comments(page.read_text())] if page is not None else [])])


def _without_comments(text: str) -> str:
    """Returns the page without the comments for `docs/generate.py`."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("<!--"))


def _pages() -> dict[str, Path]:
    place = next((place for place in _PLACES if place.is_dir()), None)
    if place is None:  # the program is the archive that an upgrade keeps, and has no pages
        return {}
    found = {path.stem: path for folder in _FOLDERS for path in (place / folder).glob("*.md")}
    return found | {"tutorial": place / "tutorial.md"}


def _describe(title: str, name: str, setting: Setting, default: object) -> str:
    table = f"[{setting.table or 'daemon'}]" if title == "daemon" else f"[{title}.NAME]"
    variable = next((one for one, pair in variables().items() if pair == (title, name)), "")
    facts = (
        ("table", table),
        ("takes", values.describe(setting.kind)),
        ("default", values.show(setting.kind, default)),
        ("flag", setting.flag),
        ("variable", variable),
    )
    lines = [f"  {what + ':':<10}{value}" for what, value in facts if value]
    return "\n".join([f"{name}: {setting.help}.", "", *lines, ""])
