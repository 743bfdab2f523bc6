"""Reads a start line of gunicorn, uWSGI or an ASGI server, as a shell, a Dockerfile or a unit has it.

Executes nothing and expands no variable: `${NAME}` stays, since a file of srvd has the same. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any, Final

from srvd.config.gunicorn import OPTIONS
from srvd.errors import ConfigInvalid
from srvd.migrate import servers, uwsgi_text
from srvd.record import Record

__all__ = ["Line", "is_server", "read", "read_flags", "referred", "split"]

WRAPPERS: Final = (("newrelic-admin", "run-program"), ("ddtrace-run",), ("opentelemetry-instrument",))
"""Programs that instrument the one that is named after them."""

_FLAGS: Final = {flag: name for name, option in OPTIONS.items() for flag in option.flags}
_VARIABLE: Final = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


class Line(Record):
    """values: by gunicorn's setting, as texts, True, or lists of texts. environ: NAME=TEXT in front. wrapper: one of
    `WRAPPERS`, or (). before: other programs in front. program: "gunicorn", "uwsgi", or one of `servers.SERVERS`.
    given: options of uWSGI, which has no values.
    """

    program: str
    app: str
    values: dict[str, Any]
    environ: dict[str, str]
    wrapper: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    given: uwsgi_text.Given = uwsgi_text.Given(())


def split(text: str) -> list[str]:
    """Returns the words of a line as a shell sees them, with `$NAME` as `${NAME}`. Raises `ConfigInvalid`."""
    if "$(" in text or "`" in text:
        raise ConfigInvalid(
            f"read the line {text.strip()!r}: it executes a command for a value; nothing was written",
            hint="give the line with that value in its place",
        )
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as exc:
        raise ConfigInvalid(f"read the line {text.strip()!r}: {exc}; nothing was written") from exc
    return [referred(word) for word in words]


def referred(word: str) -> str:
    """Returns a word with its `$NAME` as `${NAME}`."""
    return _VARIABLE.sub(r"${\1}", word)


def read(words: Sequence[str]) -> Line:
    """Returns what a start line says. Raises `ConfigInvalid` for one that gunicorn would refuse, too."""
    at = next((number for number, word in enumerate(words) if _program(word)), -1)
    if at < 0:
        raise ConfigInvalid(f"read the line {' '.join(words)!r}: it starts no gunicorn; nothing was written")
    front = [word for word in words[:at] if not _is_passed_over(word)]
    environ = dict(word.split("=", 1) for word in front if _is_assignment(word))
    before = tuple(word for word in front if not _is_assignment(word))
    wrapper = next((one for one in WRAPPERS if _named(before[-len(one) :]) == one), ())
    before = before[: len(before) - len(wrapper)]
    program, flags = _program(words[at]), words[at + 1 :]
    if program == "uwsgi":
        end = next((number for number, word in enumerate(flags) if word in servers.SEPARATORS), len(flags))
        return Line(program, "", {}, environ, wrapper, before, uwsgi_text.of_flags(flags[:end]))
    app, values = read_flags(flags) if program == "gunicorn" else servers.read_flags(program, flags)
    return Line(program, app, values, environ, wrapper, before)


def read_flags(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Returns the application and the values of gunicorn's flags; of one that is given twice, the later one counts.

    Raises `ConfigInvalid` for a flag that gunicorn does not have.
    """
    app, values = "", dict[str, Any]()
    rest = iter(words)
    for word in rest:
        if word in servers.SEPARATORS:
            break
        if not word.startswith("-") or word == "-":
            app = app or word
            continue
        flag, value = _flag(word)
        name = _FLAGS[flag]
        kind = OPTIONS[name].kind
        if kind == "yes":
            values[name] = name != "sendfile"
            continue
        if value is None:
            value = "auto" if name == "proxy_protocol" else next(rest, None)
        if value is None:
            raise ConfigInvalid(f"read the flag {flag}: it has no value; nothing was written")
        values[name] = [*values.get(name, []), value] if kind == "list" else value
    return app, values


def _flag(word: str) -> tuple[str, str | None]:
    """The flag of a word in gunicorn's spelling, and the value in the same word; None: there is none."""
    if not word.startswith("--"):
        flag, value = word[:2], word[2:].removeprefix("=")
        if flag in _FLAGS:
            return flag, value or None
    name, equals, value = word.partition("=")
    found = [flag for flag in _FLAGS if flag == name] or sorted(flag for flag in _FLAGS if flag.startswith(name))
    if name.startswith("--") and len(found) == 1:
        return found[0], value if equals else None
    raise ConfigInvalid(
        f"read the flag {name}: gunicorn has no such flag, so this line does not start; nothing was written",
        hint=f"gunicorn has {', '.join(found)}" if found else "",
    )


def is_server(word: str) -> bool:
    """Tells whether a word names gunicorn, uWSGI or one of `servers.SERVERS`."""
    return bool(_program(word))


def _program(word: str) -> str:
    name = word.rpartition("/")[2]
    return name if name in ("gunicorn", "uwsgi", *servers.SERVERS) else ""


def _is_passed_over(word: str) -> bool:
    """Tells whether a word before the program only starts it: of a shell, a Procfile, a Dockerfile, Python."""
    name = word.rpartition("/")[2]
    return name in ("exec", "env", "-m", "CMD", "ENTRYPOINT") or bool(re.fullmatch(r"python[0-9.]*|[a-z]+:", name))


def _is_assignment(word: str) -> bool:
    return re.match(r"[A-Za-z_][A-Za-z0-9_]*=", word) is not None


def _named(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word.rpartition("/")[2] for word in words)
