"""Puts environment variables into the values of a file: `"${PORT:-5001}"`.

Reads no environment itself, and knows no setting. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from srvd.record import Record

__all__ = ["EXPECTED", "Expanded", "Unexpandable", "expand"]

EXPECTED: Final = '"${NAME}" or "${NAME:-DEFAULT}"'

_REFERENCE: Final = re.compile(r"\$(\$\{)|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?(\}))?")


class Unexpandable(ValueError):
    """A variable without a value and without a default, or a reference that is no name."""


class Expanded(Record):
    """value: what stands there now. origins: where each variable's text came from; (): the value named none."""

    value: Any
    origins: tuple[str, ...]


def expand(value: Any, environ: Mapping[str, str]) -> Expanded:
    """Replaces `${NAME}` and `${NAME:-DEFAULT}` in a text, and in the texts of lists and tables; `$${` stands for `${`.

    The default is taken if the variable is not set or empty, as in a shell. Raises `Unexpandable`.
    """
    origins: list[str] = []

    def of_reference(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        name, default, end = found[2], found[3], found[4]
        if not end:
            msg = f"a reference to a variable is written {EXPECTED}, and $${{ stands for ${{"
            raise Unexpandable(msg)
        if default is None and name not in environ:
            msg = f"the environment has no {name}; ${{{name}:-DEFAULT}} gives it a default"
            raise Unexpandable(msg)
        used = default is None or bool(environ.get(name))
        origins.append(f"{'environment' if used else 'default of'} {name}")
        return environ[name] if used else default

    def of_value(one: Any) -> Any:
        if isinstance(one, str):
            return _REFERENCE.sub(of_reference, one)
        if isinstance(one, list):
            return [of_value(item) for item in one]
        if isinstance(one, dict):
            return {name: of_value(item) for name, item in one.items()}
        return one

    expanded = of_value(value)
    return Expanded(expanded, tuple(dict.fromkeys(origins)))
