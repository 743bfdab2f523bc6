"""Events and actions as lines of text, and back: the tongue of transcripts and of the daemon's trace.

`WorkerForked worker=web/1#3 pid=412`: a name, then `field=value` for every field that differs from its default.
Not the wire: nothing here is read from a less trusted process. Pure.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from srvd.core import actions, events, model
from srvd.ids import GenerationId, WorkerId

_PLAIN = re.compile(r"[A-Za-z0-9_./:@#+-]+")
_NAMES = {**vars(model), **vars(actions), **vars(events)}


def spell(value: object) -> str:
    """The text of an event, an action or one of their values."""
    match value:
        case GenerationId() | WorkerId():
            return str(value)
        case Enum():
            return str(value.value)
        case tuple() if hasattr(value, "_fields"):
            return " ".join([type(value).__name__, *_fields(value)])
        case tuple():
            return "[" + ", ".join(f"({spell(item)})" if _is_record(item) else spell(item) for item in value) + "]"
        case str():
            return value if _PLAIN.fullmatch(value) and not _is_number(value) else _quoted(value)
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    # A line stays one: besides \n, ten characters end a line for one reader or another.
    return quoted if quoted.isprintable() else json.dumps(text)


def _is_record(value: object) -> bool:
    return isinstance(value, tuple) and hasattr(value, "_fields") and not isinstance(value, (GenerationId, WorkerId))


def _is_number(text: str) -> bool:
    return text in ("none", "yes", "no") or text[0] in "+-0123456789."


def _fields(value: Any) -> list[str]:
    out = []
    for name, item in zip(value._fields, value, strict=True):
        if name in value._field_defaults and item == value._field_defaults[name]:
            continue
        text = spell(item)
        out.append(f"{name}=({text})" if _is_record(item) else f"{name}={text}")
    return out


_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()\[\],=]|[^\s()\[\],="]+)')


def read(line: str) -> Any:
    """The event or action that a line spells. Raises `ValueError` for a line that spells none."""
    tokens = _TOKEN.findall(line)
    odd = _TOKEN.sub("", line).strip()
    if odd:
        msg = f"{line!r}: {odd!r} is no word"
        raise ValueError(msg)
    try:
        record, rest = _record(tokens)
    except (LookupError, TypeError, AttributeError) as exc:  # it breaks off, or a field is missing or of another kind
        msg = f"{line!r} spells nothing: {exc!r}"
        raise ValueError(msg) from exc
    if rest:
        msg = f"{line!r}: {rest!r} is left over"
        raise ValueError(msg)
    return record


def _record(tokens: list[str]) -> tuple[Any, list[str]]:
    cls = _NAMES.get(tokens[0])
    if not (isinstance(cls, type) and hasattr(cls, "_fields")):
        msg = f"{tokens[0]!r} is no event or action"
        raise ValueError(msg)
    hints, values, rest = get_type_hints(cls), {}, tokens[1:]
    while len(rest) > 1 and rest[1] == "=":
        name = rest[0]
        if name not in hints:
            msg = f"{cls.__name__} has no field {name!r}"
            raise ValueError(msg)
        values[name], rest = _value(hints[name], rest[2:])
    return cls(**values), rest


def _value(hint: Any, tokens: list[str]) -> tuple[Any, list[str]]:
    token, rest = tokens[0], tokens[1:]
    if token == "(":  # noqa: S105 - a parenthesis, no password
        record, rest = _record(rest)
        if rest[0] != ")":
            msg = f"{rest[0]!r} instead of a closing parenthesis"
            raise ValueError(msg)
        return record, rest[1:]
    if token == "[":  # noqa: S105
        return _items(hint, rest)
    quoted = token.startswith('"')
    return _atom(_chosen(hint, token), json.loads(token) if quoted else token), rest


def _items(hint: Any, rest: list[str]) -> tuple[Any, list[str]]:
    items: list[Any] = []
    args = get_args(hint)
    while rest[0] != "]":
        wanted = args[0] if len(args) < 2 or args[1] is Ellipsis else args[len(items)]
        item, rest = _value(wanted, rest)
        items.append(item)
        if rest[0] == ",":
            rest = rest[1:]
    return tuple(items), rest[1:]


def _chosen(hint: Any, token: str) -> Any:
    """Which of the types of a union the token is of: text that looks like a number is quoted."""
    if get_origin(hint) is not UnionType:
        return hint
    kinds = get_args(hint)
    if token == "none":  # noqa: S105 - no password either
        return type(None)
    if str not in kinds:
        return next(kind for kind in kinds if kind is not type(None))
    number = not token.startswith('"') and _is_number(token)
    return str if not number else int if re.fullmatch(r"[+-]?\d+", token) else float


def _atom(hint: Any, text: str) -> Any:
    if hint is type(None):
        return None
    hint = getattr(hint, "__supertype__", hint)
    if hint is WorkerId:
        return WorkerId.parse(text)
    if hint is GenerationId:
        return GenerationId.parse(text)
    if hint is bool:
        return {"yes": True, "no": False}[text]
    return hint(text)
