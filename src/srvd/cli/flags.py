"""The flags of `srvd start`, as the settings declare them, and the values that a command line gives them.

Reads no command line: `fast.py` and `app.py` do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from srvd.config import gunicorn
from srvd.config.settings import TABLES, Setting, declared
from srvd.record import Record

__all__ = ["SHORT", "Asked", "completed", "flags", "refused_value", "without_effect"]

_CLASS = ("-k", "--worker-class")

SHORT = {
    "-b": "--bind",
    "-w": "--workers",
    "-n": "--name",
    "-p": "--pidfile",
    "--pid": "--pidfile",
    "-u": "--user",
    "-g": "--group",
    "--access-logfile": "--access-log",
    "--error-logfile": "--log-file",
    "--certfile": "--certificate",
    "--keyfile": "--key",
    "--graceful-timeout": "--drain-timeout",
    "--keep-alive": "--keepalive-timeout",
}
"""Other spellings of flags: short ones, the same as those of other servers and of srvctl, and those of gunicorn that
mean the same."""


class Asked(Record):
    """The command line of `srvd start`. `given`: values by flag, as `config/settings.py` declares it."""

    path: str | None
    given: dict[str, object]
    daemonize: bool


def flags() -> dict[str, Setting]:
    """Returns the settings that have a flag, by flag; the application's is "APP"."""
    return {one.flag: one for table in TABLES for one in declared(table).values() if one.flag}


def completed(words: Sequence[str]) -> list[str]:
    """Returns the words of a command line in which each switch without a value is on: `--reload` is `--reload=on`. What
    stands behind `--` is no flag of srvd.
    """
    switches = {flag for flag, setting in flags().items() if setting.kind.startswith("switch")}
    end = words.index("--") if "--" in words else len(words)
    return [*(f"{word}=on" if word in switches else word for word in words[:end]), *words[end:]]


def without_effect() -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yields the flags of gunicorn that srvd can pass over, and whether each takes a value."""
    yield _CLASS, True
    for name, option in gunicorn.OPTIONS.items():
        if option.fate == "needless" and option.flags and name not in ("check_config", "print_config"):
            yield option.flags, option.kind != "yes"


def refused_value(flag: str, value: object) -> str:
    """Says why the value of a flag that is passed over cannot be; "" if it can."""
    kind = gunicorn.kind_of_class(str(value)) if flag in _CLASS else "sync"
    if kind in ("sync", "threads", "asgi"):
        return ""
    if kind == "gevent":
        return 'greenlets are a setting of the pool: engine = "gevent" in srvd.toml, or SRVD_ENGINE=gevent'
    return f"there are no workers of the class {value!r}: {gunicorn.translation('worker_class')[1]}"
