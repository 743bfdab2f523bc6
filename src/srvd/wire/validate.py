"""Checks the arguments of a request against the declaration of its command.

Declares nothing: `commands.py` does. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srvd.errors import BadArgs
from srvd.wire.commands import NAME_LIMIT, TOPICS, Command, Field

__all__ = ["check"]


def check(entry: Command, args: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all arguments of the command, with defaults for those that were not sent.

    Raises `BadArgs` with the argument's name: it is unknown, missing, of the wrong type, out of bounds, or does not go
    together with another one.
    """
    known = {field.name for field in entry.fields}
    for name in args:
        if name not in known:
            raise BadArgs(
                f"call {entry.name}: unknown argument {name[:NAME_LIMIT]!r}",
                hint=f"it takes {', '.join(field.name for field in entry.fields) or 'no arguments'}",
            )
    checked: dict[str, Any] = {}
    for field in entry.fields:
        if field.name in args:
            reason = _refuse(field, args[field.name])
            if reason:
                raise BadArgs(f"call {entry.name}: {field.name} {reason}", hint=field.help)
            checked[field.name] = args[field.name]
        elif field.required:
            raise BadArgs(f"call {entry.name}: {field.name} is missing", hint=field.help)
        else:
            checked[field.name] = list(field.default) if field.kind == "topics" else field.default
    _check_together(entry, checked)
    return checked


def _check_together(entry: Command, args: Mapping[str, Any]) -> None:
    """Checks arguments that depend on each other."""
    if entry.name == "scale":
        said = (args["size"] is not None) + (args["delta"] is not None) + args["reset"]
        if said != 1:
            raise BadArgs(
                f"call scale: {said} of size, delta and reset were given, and exactly one is needed",
                hint="a size (8), a difference (+2, -2) or --reset",
            )
    if args.get("pool") and args.get("worker"):
        raise BadArgs(f"call {entry.name}: a pool and a worker were given", hint="a worker's name has its pool in it")


def _refuse(field: Field, value: object) -> str:
    """Says why this value does not fit; "" if it does. A bool, which Python takes for an int, is no number here."""
    match field.kind:
        case "flag":
            return "" if isinstance(value, bool) else "is neither true nor false"
        case "int":
            if isinstance(value, bool) or not isinstance(value, int):
                return "is no whole number"
            return _refuse_number(field, value)
        case "seconds" | "moment":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return "is no number of seconds"
            return _refuse_number(field, value)
        case "pool" | "worker" | "generation":
            return _refuse_text(value)
        case "topics":
            if not isinstance(value, list) or len(value) > len(TOPICS):
                return "is no list of topics"
            return "" if all(isinstance(topic, str) and topic in TOPICS for topic in value) else "has an unknown topic"
    msg = f"a field of the unknown kind {field.kind}"
    raise AssertionError(msg)


def _refuse_number(field: Field, value: float) -> str:
    if not field.least <= value <= field.most:  # also false for NaN
        return f"is {value}, and {field.least:.10g} to {field.most:.10g} is allowed"
    return ""


def _refuse_text(value: object) -> str:
    if not isinstance(value, str):
        return "is no text"
    if len(value) > NAME_LIMIT:
        return f"has {len(value)} characters, and {NAME_LIMIT} is the limit"
    return "" if value.isprintable() else "has characters that cannot be printed"
