"""Typed values as plain ones – maps, lists, texts, numbers – and back, as their annotations say.

Knows no class by name and no bytes on a disk. One rule for all records, so that a new field is carried from the day it
is declared: a record is a named tuple, or a plain class whose body declares every attribute.

Reading is strict. A field that is not known, or of another type, was written by a program that meant something else,
and no state is better than half of one. A field that is missing was not known to the writer, and has its default.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Set
from enum import Enum
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Annotated, Any, NewType, Union, get_args, get_origin, get_type_hints

from srvd.record import Record

__all__ = ["DERIVED", "Codec", "Formerly", "Misfit", "codec"]

_SCALARS = (bool, int, float, str, bytes, NoneType)


class Misfit(ValueError):
    """A plain value is not what the annotation says. The message begins with the way to the value:
    `SupervisorState.pools: …`.
    """


class Formerly(str):
    """The name that states of former programs have for a field: `Annotated[int, Formerly("old")]`."""

    __slots__ = ()


DERIVED = "derived"
"""`Annotated[set[int], DERIVED]`: not carried; it follows from the rest, and the reader makes it anew."""


class Codec(Record):
    """`dump` makes a plain value, `load` reads one. Load raises `Misfit`."""

    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


@cache
def codec(hint: Any) -> Codec:
    """For values of this type: a scalar, an enum, a record, a collection of these with its parameters, or `… | None`.

    Raises `TypeError` for any other type: it is declared wrongly.
    """
    origin, args = get_origin(hint), get_args(hint)
    if isinstance(hint, NewType):
        return codec(hint.__supertype__)
    if hint in _SCALARS:
        return _scalars((hint,))
    if origin is Annotated:
        most = next((extra for extra in args[1:] if isinstance(extra, int)), None)
        return _bounded(args[0], most) if get_origin(args[0]) is deque else codec(args[0])
    if origin in (Union, UnionType):
        return _union(args)
    if origin in (tuple, frozenset, set, list):
        return _tuple(args) if origin is tuple and Ellipsis not in args else _many(origin, args[0])
    if origin in (dict, Mapping):
        return _texts(args[1]) if args[0] is str else _pairs(*args)
    if isinstance(hint, type) and issubclass(hint, dict):  # a map with methods; its constructor takes another one
        inner = codec(hint.__orig_bases__[0])  # type: ignore[attr-defined]  # the type that it is derived from
        return Codec(inner.dump, lambda plain: hint(inner.load(plain)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Codec(attrgetter("_value_"), lambda plain: _member(hint, plain))  # `value` takes two calls in Python
    if isinstance(hint, type) and "__annotations__" in vars(hint):
        return _record(hint)
    msg = f"{hint!r} cannot be carried: it is no scalar, enum, record or collection"
    raise TypeError(msg)


def _scalars(kinds: tuple[type, ...]) -> Codec:
    """Exactly these types: a bool is an int to Python, not to us. A whole number may stand for a float."""
    allowed = frozenset(kinds) | ({int} if float in kinds else set())

    def load(plain: Any) -> Any:
        if type(plain) not in allowed:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise Misfit(f"{type(plain).__name__} instead of {names}")
        return plain

    return Codec(_same, load)


def _same(value: Any) -> Any:
    """A value that is plain. Records and collections know it, and copy such values without a call for each."""
    return value


def _union(args: tuple[Any, ...]) -> Codec:
    others = tuple(arg for arg in args if arg is not NoneType)
    if all(arg in _SCALARS for arg in others):
        return _scalars(args)
    (only,) = others  # two records could not be told apart
    inner = codec(only)
    return Codec(
        lambda value: None if value is None else inner.dump(value),
        lambda plain: None if plain is None else inner.load(plain),
    )


def _many(make: Callable[[list[Any]], Any], hint: Any) -> Codec:
    inner = codec(hint)

    def load(plain: Any) -> Any:
        return make([inner.load(item) for item in _listed(plain)])

    if make in (frozenset, set):
        return Codec(sorted if inner.dump is _same else lambda value: list(map(inner.dump, sorted(value))), load)
    return Codec(list if inner.dump is _same else lambda value: list(map(inner.dump, value)), load)


def _bounded(hint: Any, most: int | None) -> Codec:
    inner = codec(list[get_args(hint)[0]])  # type: ignore[misc]  # the parameter is known at run time only
    return Codec(inner.dump, lambda plain: deque(inner.load(plain), maxlen=most))


def _tuple(args: tuple[Any, ...]) -> Codec:
    inner = [codec(arg) for arg in args]
    others = [(index, one.dump) for index, one in enumerate(inner) if one.dump is not _same]

    def dump(value: tuple[Any, ...]) -> list[Any]:
        plain = list(value)
        for index, one in others:
            plain[index] = one(plain[index])
        return plain

    def load(plain: Any) -> tuple[Any, ...]:
        if len(_listed(plain)) != len(inner):
            raise Misfit(f"{len(plain)} items instead of {len(inner)}")
        return tuple(one.load(item) for one, item in zip(inner, plain, strict=True))

    return Codec(dump if others else list, load)


def _texts(hint: Any) -> Codec:
    """A map with texts for keys stays a map."""
    inner = codec(hint)

    def load(plain: Any) -> dict[str, Any]:
        if not isinstance(plain, dict) or not all(isinstance(key, str) for key in plain):
            raise Misfit(f"{type(plain).__name__} instead of a map")
        return {key: inner.load(item) for key, item in plain.items()}

    if inner.dump is _same:
        return Codec(dict, load)
    return Codec(lambda value: dict(zip(value, map(inner.dump, value.values()), strict=True)), load)


def _pairs(key: Any, hint: Any) -> Codec:
    """Any other map becomes a list of pairs."""
    inner = codec(list[tuple[key, hint]])
    return Codec(lambda value: inner.dump(value.items()), lambda plain: dict(inner.load(plain)))


def _record(cls: type) -> Codec:
    hints, derived = _hints(cls)
    inner = {name: codec(hint) for name, hint in hints.items()}
    former = {str(extra): name for name, hint in hints.items() for extra in get_args(hint) if type(extra) is Formerly}
    is_tuple = issubclass(cls, tuple)
    defaults: Mapping[str, Any] = (
        cls._field_defaults  # type: ignore[attr-defined]  # a named tuple
        if is_tuple
        else {name: vars(cls)[name] for name in inner if name in vars(cls)}
    )
    names = tuple(inner)
    others = [(name, one.dump) for name, one in inner.items() if one.dump is not _same]

    def dump(value: Any) -> dict[str, Any]:
        # Also what is as by default: the reader's default may be another one.
        values = zip(names, value, strict=True) if is_tuple else _attributes(cls, value, names, defaults, derived)
        plain: dict[str, Any] = dict(values)
        for name, one in others:
            plain[name] = one(plain[name])
        return plain

    def load(plain: Any) -> Any:
        values = dict(defaults)
        for spelt, item in _mapped(cls, plain, inner.keys() | former.keys()).items():
            name = former.get(spelt, spelt)
            try:
                values[name] = inner[name].load(item)
            except Misfit as misfit:
                raise Misfit(f"{cls.__name__}.{name}: {misfit}") from None
        missing = inner.keys() - values.keys()
        if missing:
            raise Misfit(f"{cls.__name__} has no {min(missing)}")
        if is_tuple:
            return cls(**values)
        made: Any = object.__new__(cls)
        vars(made).update(values)
        return made

    return Codec(dump, load)


def _hints(cls: type) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of what is carried, by name, and the names of what is derived."""
    declared = get_type_hints(cls, include_extras=True)
    derived = frozenset(name for name, hint in declared.items() if DERIVED in get_args(hint)[1:])
    return {name: hint for name, hint in declared.items() if name not in derived}, derived


def _attributes(
    cls: type, value: Any, names: tuple[str, ...], defaults: Mapping[str, Any], derived: Set[str]
) -> dict[str, Any]:
    """All that is declared and carried, in that order. Raises `TypeError`: an attribute is not declared, or has no
    value.
    """
    plain: dict[str, Any] = {**dict.fromkeys(names), **defaults, **vars(value)}
    for name in derived:
        plain.pop(name, None)
    if len(plain) > len(names):
        msg = f"{cls.__name__} does not declare {', '.join(sorted(plain.keys() - set(names)))}"
        raise TypeError(msg)
    if len(vars(value).keys() | defaults.keys()) < len(names):
        msg = f"{cls.__name__} has no {min(set(names) - vars(value).keys() - defaults.keys())}"
        raise TypeError(msg)
    return plain


def _mapped(cls: type, plain: Any, known: Set[str]) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise Misfit(f"{type(plain).__name__} instead of {cls.__name__}")
    unknown = plain.keys() - known
    if unknown:
        raise Misfit(f"{cls.__name__} knows no {min(map(str, unknown))}")
    return plain


def _member(cls: type[Enum], plain: Any) -> Enum:
    try:
        return cls(plain)
    except ValueError:
        raise Misfit(f"{plain!r} is no {cls.__name__}") from None


def _listed(plain: Any) -> list[Any]:
    if not isinstance(plain, list):
        raise Misfit(f"{type(plain).__name__} instead of a list")
    return plain
