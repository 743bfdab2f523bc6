"""Tells the few header fields that say something of the message or its connection from all others, by their names.

Judges no values: the guard does. Pure, but for a bounded memory of names.
"""

from __future__ import annotations

from srvd.http.h1.refusal import Refusal
from srvd.http.h1.sink import Fields, joined

__all__ = ["FieldNames"]

_ONCE = (b"host", b"content-length", b"content-type", b"transfer-encoding")
_CONTROL = frozenset({*_ONCE, b"connection", b"expect"})
_USUAL = {spelling: name for name in _CONTROL for spelling in (name, name.title())}
"""How nearly all clients spell them: HTTP/1.1 clients in one way, proxies that speak HTTP/2 in the other."""
_MOST_NAMES = 1024
_LONGEST_NAME = 64


class FieldNames:
    """One reader's. `underscores`: a field whose name has one is dropped, else its request is refused.

    A name with an underscore collides with the one with a hyphen wherever names become variables (X_User and X-User are
    both HTTP_X_USER in CGI), which is a known attack.
    """

    def __init__(self, *, underscores: bool) -> None:
        self._underscores = underscores
        self._known = {*_USUAL}  # names as received: the usual ones, and others that say nothing here

    def sort(self, fields: Fields, found: dict[bytes, bytes]) -> tuple[Fields, dict[bytes, bytes]]:
        """The fields that an application may find; and those that say something of the message or its connection, by
        their names in lower case. `found`: the same fields as a dict, whose keys are the names as received. Raises
        `Refusal`.
        """
        pairs = [(lower, found[name].rstrip()) for name, lower in _USUAL.items() if name in found]
        dropped = not self._known.issuperset(found) and self._look_closer(found, pairs)
        control = dict(pairs)
        if len(found) != len(fields) or len(control) != len(pairs):
            control = _join_control(fields)
        if dropped or control.get(b"host") == b"":
            # RFC 9110 section 7.2: an empty Host is what a client says that knows no name, as health checks do. An
            # application then finds what it finds without the field; an empty name is none that a framework allows.
            fields = [field for field in fields if b"_" not in field[0] and not _is_empty_host(field)]
        return fields, control

    def _look_closer(self, found: dict[bytes, bytes], pairs: list[tuple[bytes, bytes]]) -> bool:
        """Some names were not seen before, or are spelt unusually. True: a field has to be dropped."""
        dropped = False
        for name in set(found) - self._known:
            lower = name.lower()
            if b"_" in name:
                dropped = True
            elif lower in _CONTROL:
                pairs.append((lower, found[name].rstrip()))
            elif len(self._known) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
                self._known.add(name)
        if dropped and not self._underscores:
            raise Refusal(400, "a field name with an underscore")
        return dropped


def _join_control(fields: Fields) -> dict[bytes, bytes]:
    names = [name.lower() for name, _ in fields]
    for name in _ONCE:
        if names.count(name) > 1:
            raise Refusal(400, f"{name.decode()} more than once")
    return {name: value for name, value in joined(fields).items() if name in _CONTROL}


def _is_empty_host(field: tuple[bytes, bytes]) -> bool:
    return not field[1].strip(b" \t") and field[0].lower() == b"host"
