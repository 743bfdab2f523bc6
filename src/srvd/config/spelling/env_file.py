"""Reads the text of a file of environment variables, as systemd's EnvironmentFile and `.env` files have it.

Opens no file, and expands nothing. Pure.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parse"]

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")


def parse(text: str) -> dict[str, str]:
    """Returns the variables. Raises `ValueError`, which names the line and never shows a value.

    Each line is NAME=VALUE, perhaps after `export`; empty lines and those that begin with # or ; are passed over.
    Quotes around a value are taken off; a backslash before a character stands for that character in double quotes.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        match = _LINE.fullmatch(stripped)
        if match is None or "\0" in line:
            msg = f"line {number} is not NAME=VALUE"
            raise ValueError(msg)
        found[match[1]] = _unquoted(match[2])
    return found


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value
