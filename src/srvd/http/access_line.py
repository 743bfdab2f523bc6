"""Spells one line of the access log for one request: common, combined, JSON, or a format of atoms.

Writes nothing and reads no clock, no pid and no time zone: they are handed in. Pure, but for the second it has spelled.
"""

from __future__ import annotations

import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from srvd.http.access_format import PRESETS, pieces_of
from srvd.http.h1.date import MONTHS

__all__ = ["LONGEST", "Format", "Names", "Place", "Record", "compile_format"]

LONGEST = 8192
"""The longest line in bytes, with its end."""

_CUT = "..."

_UNSEEN = (*range(0x20), *range(0x7F, 0x100), 0x22, 0x5C)
_ESCAPES = {code: f"\\x{code:02x}" for code in _UNSEEN}
# JSON knows no \x; the code point is the byte.
_JSON_ESCAPES = {code: f"\\u{code:04x}" for code in _UNSEEN}


class Record(NamedTuple):
    """One request that has ended. A request that was refused has what is known of its connection only."""

    scope: Mapping[str, Any]  # the environ, or what another calling convention has in its place
    code: int
    fields: str  # of the response, "Name: value\r\n" …
    sent: int  # bytes of the response without its head
    at: float  # Unix seconds, when it began
    took: float  # seconds


class Names(NamedTuple):
    """The keys of a scope, in one calling convention, of what lines tell."""

    address: str
    method: str
    target: str  # as received
    path: str  # decoded
    query: str
    protocol: str
    worker: str
    field: Callable[[str], str]  # the key of a request's field, by its name
    facts: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
    """What has these keys, of a scope; None: the scope itself."""


class Place(NamedTuple):
    """Where lines are made: the worker's pid, and the offset of its time zone from UTC in seconds at a given time."""

    pid: int
    zone: Callable[[int], int]
    names: Names
    longest: int = LONGEST  # of a line with its end


Format = Callable[[Record], str]
"""The line of a record, without its end: printable ASCII only, shorter than LONGEST."""

_Atom = Callable[[Record], str]


def compile_format(text: str, place: Place) -> Format:
    """The function that spells the lines of a format: a name of `PRESETS`, or a text with atoms such as %(h)s.

    Raises `ValueError` for what `access_format.explain_problem` explains.
    """
    speller = _Speller(place)
    if text in PRESETS:
        return {"common": speller.common, "combined": speller.combined, "json": speller.json}[text]
    makers = [speller.maker(piece) if is_atom else _literal(piece) for piece, is_atom in pieces_of(text)]
    most = place.longest
    return lambda record: _cut("".join([make(record) for make in makers]), most - 1)


def _literal(text: str) -> _Atom:
    # As it is, but for what is no ASCII: its writer's quotes are meant.
    plain = text.encode("ascii", "backslashreplace").decode()
    return lambda record: plain


class _Speller:
    """Spells the parts of records for one place, none so long that the rest of its line would be cut off."""

    def __init__(self, place: Place) -> None:
        self._zone = place.zone
        self._pid = place.pid
        self._names = names = place.names
        self._referer, self._agent = names.field("referer"), names.field("user-agent")
        self._host, self._authorization = names.field("host"), names.field("authorization")
        self._field = place.longest // 8
        self._target = place.longest - 2 * self._field - 900
        self._second: tuple[int, str] = (-1, "")  # one store: a thread sees both or neither
        self._stamp: tuple[int, str, str] = (-1, "", "")  # the same for JSON

    def maker(self, name: str) -> _Atom:
        """What spells one atom."""
        if name[0] == "{":
            return self._named(name[1:-2], name[-1])
        names = self._names
        simple: dict[str, _Atom] = {
            "h": self._address,
            "l": lambda record: "-",
            "u": self._user,
            "t": lambda record: self._time(record.at),
            "r": self._request_line,
            "s": lambda record: str(record.code),
            "m": self._variable(names.method, self._field),
            "U": self._variable(names.path, self._target),
            "q": self._variable(names.query, self._target, missing=""),
            "H": self._variable(names.protocol, self._field),
            "B": lambda record: str(record.sent),
            "b": lambda record: str(record.sent) if record.sent else "-",
            "f": self._variable(self._referer, self._field),
            "a": self._variable(self._agent, self._field),
            "T": lambda record: str(int(record.took)),
            "D": lambda record: str(int(record.took * 1e6)),
            "M": lambda record: str(int(record.took * 1e3)),
            "L": lambda record: f"{record.took:.6f}",
            "p": lambda record: f"<{self._pid}>",
        }
        return simple[name]

    def common(self, record: Record) -> str:
        """The Common Log Format."""
        user = self._user(record) if self._authorization in record.scope else "-"
        return (
            f"{self._address(record)} - {user} {self._time(record.at)} "
            f'"{self._request_line(record)}" {record.code} {record.sent or "-"}'
        )

    def combined(self, record: Record) -> str:
        """The same with Referer and User-Agent."""
        scope, most = record.scope, self._field
        referer, agent = scope.get(self._referer) or "-", scope.get(self._agent) or "-"
        return f'{self.common(record)} "{_escaped(referer, most)}" "{_escaped(agent, most)}"'

    def json(self, record: Record) -> str:
        """One object. A byte outside of printable ASCII is the code point of the same number."""
        get, names = record.scope.get, self._names
        second = int(record.at)
        kept, day, offset = self._stamp
        if kept != second:
            seconds = self._zone(second)
            year, month, mday, hour, minute, sec, *_ = time.gmtime(second + seconds)
            day = f"{year}-{month:02}-{mday:02}T{hour:02}:{minute:02}:{sec:02}"
            offset = _zone(seconds, ":")
            self._stamp = (second, day, offset)
        method, protocol = get(names.method, ""), get(names.protocol, "")
        remote = _json(get(names.address, ""), 100)
        host, target = _json(get(self._host, ""), 260), _json(get(names.target, ""), self._target)
        referer, agent = _json(get(self._referer, ""), self._field), _json(get(self._agent, ""), self._field)
        worker, micro = get(names.worker, ""), int(record.at % 1 * 1e6)
        return (
            f'{{"time": "{day}.{micro:06}{offset}", "remote": "{remote}", "host": "{host}", "method": "{method}", '
            f'"target": "{target}", "protocol": "{protocol}", "referer": "{referer}", "user_agent": "{agent}", '
            f'"worker": "{worker}", "status": {record.code}, "body_bytes": {record.sent}, '
            f'"duration_s": {record.took:.6f}}}'
        )

    def _named(self, name: str, kind: str) -> _Atom:
        if kind == "e":
            return self._variable(name, self._field)
        if kind == "o":
            start, most = f"{name.lower()}: ", self._field
            return lambda record: _response_field(record.fields, start, most)
        return self._variable(self._names.field(name), self._field)

    def _variable(self, key: str, most: int, missing: str = "-") -> _Atom:
        def spell(record: Record) -> str:
            value = record.scope.get(key)
            return missing if value is None else _escaped(value if type(value) is str else str(value), most)

        return spell

    def _address(self, record: Record) -> str:
        # Of the kernel, or of a trusted proxy, which may say anything.
        return _escaped(record.scope.get(self._names.address) or "-", 100)

    def _request_line(self, record: Record) -> str:
        scope, names = record.scope, self._names
        target = scope.get(names.target)
        if target is None:
            return "-"
        return f"{scope[names.method]} {_escaped(target, self._target)} {scope[names.protocol]}"

    def _user(self, record: Record) -> str:
        """RFC 7617: what stands before the first colon of the credentials."""
        scheme, _, credentials = record.scope.get(self._authorization, "").partition(" ")
        if scheme.lower() != "basic":
            return "-"
        try:
            user = binascii.a2b_base64(credentials.strip().encode("latin-1")).partition(b":")[0]
        except ValueError:
            return "-"
        # A space would shift the columns for a program that reads the line.
        return _escaped(user.decode("latin-1"), self._field // 4).replace(" ", "\\x20") or "-"

    def _time(self, at: float) -> str:
        """As `t` has it, kept for its second; strftime would follow the locale."""
        second = int(at)
        kept, text = self._second
        if kept != second:
            offset = self._zone(second)
            year, month, day, hour, minute, sec, *_ = time.gmtime(second + offset)
            text = f"[{day:02}/{MONTHS[month - 1]}/{year}:{hour:02}:{minute:02}:{sec:02} {_zone(offset)}]"
            self._second = (second, text)
        return text


def _response_field(fields: str, start: str, most: int) -> str:
    found = [line[len(start) :] for line in fields.split("\r\n") if line[: len(start)].lower() == start]
    return _escaped(", ".join(found), most) if found else "-"


def _zone(offset: int, colon: str = "") -> str:
    hours, minutes = divmod(abs(offset) // 60, 60)
    return f"{'-' if offset < 0 else '+'}{hours:02}{colon}{minutes:02}"


def _escaped(text: str, most: int, escapes: Mapping[int, str] = _ESCAPES) -> str:
    """Everything outside of printable ASCII, quotes and backslashes as their bytes; `most` characters at most."""
    if not (text.isascii() and text.isprintable()) or '"' in text or "\\" in text:
        if not text.isascii() and max(text) > "\xff":  # no text of HTTP's, which is bytes; an application's
            text = text.encode("utf-8", "surrogatepass").decode("latin-1")
        text = text[: most + 1].translate(escapes)  # one more: it shows that it is cut
    return _cut(text, most)


def _json(text: str, most: int) -> str:
    return _escaped(text, most, _JSON_ESCAPES) if text else ""


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = text[: most - len(_CUT)]
    begun = kept.rfind("\\", len(kept) - 5)  # no half of an escape stays
    return (kept if begun < 0 else kept[:begun]) + _CUT
