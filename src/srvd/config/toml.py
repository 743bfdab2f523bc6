"""Reads one TOML file into its values and the line each key stands on.

`tomllib` parses, and gives no line numbers: so a scanner looks for the keys in the text that `tomllib` has accepted.
Imported only when there is a file to read.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from typing import Any, Final

from srvd.errors import ConfigInvalid
from srvd.record import Record

__all__ = ["Document", "find_lines", "read_document"]

LIMIT: Final = 1 << 20
"""The longest file, in bytes."""

Path = tuple[str, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_LONG = re.compile(r"[0-9_]{1000,}")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_TEXT = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'  # multi-line basic; up to two quotes may stand before the closing ones
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'",
    re.DOTALL,
)


class Document(Record):
    """A file that was read. `lines` maps the path of a key or a table to its line, counted from 1."""

    path: str
    values: dict[str, Any]
    lines: dict[Path, int]

    def where(self, key: Path) -> str:
        """Returns "FILE:LINE" of the key, or of the nearest table around it."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.path}:{self.lines[key]}" if key else self.path


def read_document(path: str, *, again: bool = False) -> Document:
    """Reads the file at `path`. Raises `ConfigInvalid` when it cannot be read or is not TOML.

    again: a daemon that serves reads it, and must not wait: anything but a file is refused. The first time it may be a
        pipe, as in `-c <(…)`.
    """
    path = os.path.abspath(path)
    source = _source(path, again=again)
    if len(source) > LIMIT:
        raise ConfigInvalid(f"read {path}: it is longer than {LIMIT} bytes; nothing was changed")
    try:
        text = source.decode()
        return Document(path, tomllib.loads(text), find_lines(text))
    except UnicodeDecodeError as exc:
        line = source.count(b"\n", 0, exc.start) + 1
        raise ConfigInvalid(f"{path}:{line}: this is not UTF-8 ({exc.reason}); nothing was changed") from exc
    except tomllib.TOMLDecodeError as exc:
        raise _not_toml(path, str(exc)) from exc
    except ValueError as exc:  # int() refuses more digits than sys.get_int_max_str_digits()
        place = _LONG.search(text)
        where = f"{path}:{text.count(chr(10), 0, place.start()) + 1}" if place else path
        raise ConfigInvalid(f"{where}: a number has too many digits; nothing was changed") from exc
    except RecursionError as exc:
        raise ConfigInvalid(f"read {path}: it is nested too deeply; nothing was changed") from exc


def _source(path: str, *, again: bool) -> bytes:
    """Returns the bytes of the file, at most one more than may be. Raises `ConfigInvalid`."""
    try:
        with open(path, "rb", opener=_open_again if again else None) as file:
            if again and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigInvalid(
                    f"read {path}: it is no file and cannot be read again; nothing was changed",
                    hint="restart with -c and the name of a file: it is read at each reload",
                )
            return file.read(LIMIT + 1)
    except OSError as exc:
        hint = "put it back: each reload reads it" if again else "-c FILE names the configuration file"
        raise ConfigInvalid(f"read {path}: {exc.strerror}; nothing was changed", hint=hint) from exc


def _not_toml(path: str, complaint: str) -> ConfigInvalid:
    """The error for a file of which tomllib says `complaint`."""
    place = re.search(r" \(at line (\d+), column (\d+)\)$", complaint)
    where = f"{path}:{place[1]}" if place else path
    what = complaint[: place.start()] if place else complaint
    hint = ""
    if path.endswith(".py"):
        hint = f"srvd reads TOML; `srvd import {os.path.basename(path)}` makes it of a configuration of gunicorn"
    elif what.startswith(("Invalid value", "Expected newline or end of document")):
        hint = 'text, paths and times are written in quotes, as in app = "shop.wsgi:application"'
    return ConfigInvalid(f"{where}: not valid TOML: {what}; nothing was changed", hint=hint)


def _open_again(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # opening a FIFO would wait for its writer


def find_lines(text: str) -> dict[Path, int]:
    """Returns the line, counted from 1, of each key and table in a valid TOML text, without keys inside of arrays."""
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


class _Scanner:
    """Reads a valid text once; `at` is the position of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._counted = 0
        self._line = 1

    def scan(self) -> None:
        table: Path = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                self.at += 2 if self.text.startswith("[[", self.at) else 1
                table = self._key(())
                self.at += 2 if self.text.startswith("]]", self.at) else 1
            else:
                self._assignment(table)
            self._skip(_BLANK)

    def _assignment(self, table: Path | None) -> None:
        key = self._key(table)
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(key if table is not None else None)

    def _key(self, table: Path | None) -> Path:
        """Reads a dotted key, and notes the first line of each of its parts; `table` None: within an array."""
        key = table or ()
        while True:
            self._skip(_BLANK)
            key = (*key, self._step())
            if table is not None:
                self.lines.setdefault(key, self._line_here())
            self._skip(_BLANK)
            if self.text[self.at] != ".":
                return key
            self.at += 1

    def _step(self) -> str:
        if self.text[self.at] in "\"'":
            return str(tomllib.loads(f"key = {self._skip(_TEXT)}")["key"])
        return self._skip(_BARE)

    def _value(self, key: Path | None) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self._skip(_TEXT)
        elif first == "[":
            self._items("]", None)
        elif first == "{":
            self._items("}", key)
        else:
            self._skip(_SCALAR)

    def _items(self, closing: str, key: Path | None) -> None:
        self.at += 1
        self._skip(_BLANK)
        while self.text[self.at] != closing:
            if closing == "}":
                self._assignment(key)
            else:
                self._value(None)
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
                self._skip(_BLANK)
        self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise AssertionError(f"{pattern.pattern!r} at {self.at} of a text that tomllib accepted")
        self.at = match.end()
        return match[0]

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line
