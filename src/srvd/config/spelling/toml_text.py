"""Spells values as TOML.

Knows no setting and no kind: `values.py` does. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["quote", "spell"]


def spell(value: Any) -> str:
    """Returns a value as a file has it: `true`, `"text"`, `[1, 2]`, `{ a = "b" }`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(spell(item) for item in value) + "]"
    if isinstance(value, Mapping):
        items = ", ".join(f"{_key(name)} = {spell(item)}" for name, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    return str(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quote(name)


def quote(text: str) -> str:
    """Returns a text as a file has it, in quotes."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'
