"""Reads and writes the values of settings: durations, sizes, modes, choices, names, lists.

Touches no file, no user database and no network: `check.py` looks whether a folder or a user exists. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from srvd.config.spelling import formula, target, toml_text
from srvd.linux.processes.limits import RESOURCES, UNLIMITED
from srvd.nearest import nearest
from srvd.record import Record

__all__ = ["KINDS", "ROLES", "Kind", "Unfit", "describe", "from_text", "nearest", "read", "show", "unit"]

ROLES: Final = ("viewer", "operator", "admin")

LONGEST: Final = 7 * 86_400.0
"""The longest duration, in seconds. More is a typing error, and does not fit the kernel's timers in milliseconds."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_SIZES: Final = {"B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("KMGT", start=1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d|)")
_WORDY = re.compile(r"([0-9.]+) ?([smhdSMHD])[a-zA-Z]*")
_SIZE = re.compile(r"([0-9]{1,19})((?:\.[0-9]{1,6})?) ?([A-Za-z]*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODE = re.compile(r"0?[0-7]{3}")


class Unfit(ValueError):
    """A value that a setting cannot have. `expected`: what would fit; `nearest`: the nearest value that fits, as TOML;
    `found`: the part of a table or list that does not fit, or None for the whole value.
    """

    def __init__(self, expected: str, nearest: str = "", *, found: object = None) -> None:
        super().__init__(expected)
        self.expected = expected
        self.nearest = nearest
        self.found = found


class Kind(Record):
    """How the values of one kind are read. `read` is given the value of TOML, and the text after the kind's colon."""

    expected: str  # for a person: "a time of at most …"
    read: Callable[[object, str], Any]
    listed: bool = False  # in an environment variable the items stand between commas
    tabled: bool = False  # a TOML table: no variable and no flag can hold it


def read(kind: str, value: object) -> Any:
    """Returns the setting's value from a value of TOML. Raises `Unfit`."""
    base, _, argument = kind.partition(":")
    try:
        return KINDS[base].read(value, argument)
    except Unfit as unfit:
        near = (
            unfit.nearest
            if base in ("count", "formula") or unfit.nearest[:1] in ("", "[")
            else toml_text.quote(unfit.nearest)
        )
        raise Unfit(unfit.expected or describe(kind), near, found=unfit.found) from None


def describe(kind: str) -> str:
    """Says in words what a setting of this kind expects."""
    base, _, argument = kind.partition(":")
    if base in ("choice", "switch"):
        return "one of " + ", ".join(f'"{word}"' for word in argument.split("|"))
    if argument:
        number = "a whole number from {} to {}".format(*argument.split(".."))
        return number if base == "count" else f'{number}, "auto", or a formula such as "cpus + 1"'
    return KINDS[base].expected


def unit(kind: str) -> str:
    """Returns the unit of the values that `read` returns for this kind; "": none."""
    base = kind.partition(" ")[0]
    return {"duration": "s", "size": "bytes"}.get(base, "")


def from_text(kind: str, text: str) -> object:
    """Returns the TOML value that the text of a flag or an environment variable means; text if it is no number."""
    base = kind.partition(":")[0]
    if KINDS[base].listed:
        return [item.strip() for item in text.split(",") if item.strip()]
    if base in ("count", "formula") and re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()):
        return int(text)
    if base == "yes or no":
        words = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
        return words.get(text.strip().lower(), text)
    return text


def show(kind: str, value: Any) -> str:
    """Writes a setting's value as TOML, in the spelling that a person would choose: "90s", "512MiB"."""
    base = kind.partition(":")[0]
    if base.startswith("duration"):
        return toml_text.quote(_show_duration(value))
    if base.startswith("size"):
        return toml_text.quote(_show_size(value)) if value else "0"
    return _show_limits(value) if base == "limits" else toml_text.spell(value)


def _text(value: object, _: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Unfit("")
    return value


def _name(value: object, _: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        text = value.lower() if isinstance(value, str) else ""
        tidied = re.sub(r"[^a-z0-9_-]+", "-", text).strip("-")[:40]
        raise Unfit("", tidied if _NAME.fullmatch(tidied) else "")
    return value


def _choice(value: object, argument: str) -> str:
    words = argument.split("|")
    if isinstance(value, bool):
        value = "on" if value else "off"
        raise Unfit("", value if value in words else "")
    if isinstance(value, str) and value.lower() in words:
        return value.lower()
    if value not in words:
        raise Unfit("", nearest(str(value), words) if isinstance(value, (str, float)) else "")  # minimum_tls = 1.3
    return str(value)


def _switch(value: object, argument: str) -> str:
    """A choice with the words on and off, which true and false mean as well."""
    return _choice(("off", "on")[value] if isinstance(value, bool) else value, argument)


def _count(value: object, argument: str) -> int:
    least, most = (int(end) for end in argument.split(".."))
    if isinstance(value, str) and value.isascii() and value.isdigit():
        raise Unfit("", value)  # a number in quotes
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit("")
    if not least <= value <= most:
        raise Unfit("")  # no nearest value: the end of the range is seldom what was meant
    return value


def _formula(value: object, argument: str) -> int | str:
    """A number, or a formula that gives one on this machine: `load.py` calculates it."""
    if not isinstance(value, str):
        return _count(value, argument)
    try:
        formula.evaluate(value, 1)
    except ValueError:
        raise Unfit("") from None
    return value


def _duration(value: object, _: str) -> float:
    seconds = _seconds(value)
    if seconds <= 0:
        raise Unfit("")
    return seconds


def _seconds(value: object, _: str = "") -> float:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if not match:  # "5 minutes", "30sec": the first letter tells
            words = _WORDY.fullmatch(value.strip())
            raise Unfit("", words[1] + words[2].lower() if words else "")
        value = float(match[1]) * _UNITS[match[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= LONGEST:
        raise Unfit("")
    return float(value)


def _show_duration(seconds: float) -> str:
    for unit in ("d", "h", "m", "s", "ms"):
        count = seconds / _UNITS[unit]
        # a larger unit only if there are two of it: "60s" and not "1m"
        if count == int(count) and (count >= 2 or unit in ("d", "s", "ms")) and (count or unit == "s"):
            return f"{int(count)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _size(value: object, _: str) -> int:
    size = _bytes(value)
    if size == 0:
        raise Unfit("")
    return size


def _bytes(value: object, _: str = "") -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if not match:
            raise Unfit("")
        whole, fraction, unit = match[1], match[2], match[3] or "B"
        factor = next((size for name, size in _SIZES.items() if name.lower() == unit.lower()), 0)
        if not factor:  # "512M" means 1000² to some and 1024² to others
            letter = unit[:1].upper()
            raise Unfit("", f"{whole}{fraction}{letter}iB" if letter in "KMGT" else "")
        value = int(whole) * factor + int(float(fraction or 0) * factor)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise Unfit("")
    return value


def _show_size(size: int) -> str:
    fitting = [name for name, factor in _SIZES.items() if size % factor == 0 and size >= factor]
    unit = max(fitting, key=lambda name: _SIZES[name])
    return f"{size // _SIZES[unit]}{unit}"


def _mode(value: object, _: str) -> str:
    if isinstance(value, str) and not value:
        return value
    if not isinstance(value, str) or not _MODE.fullmatch(value):
        raise Unfit("")  # no nearest for a number: 0o660 arrives here as 432, which could mean "0432" as well
    return value.zfill(4)


def _required_mode(value: object, _: str) -> str:
    if value == "":
        raise Unfit("")
    return _mode(value, _)


def _app(value: object, _: str) -> str:
    text = value if isinstance(value, str) else ""
    if text.endswith(".toml"):
        raise Unfit('"MODULE:ATTRIBUTE"; -c FILE names a configuration file')
    try:
        target.parse(text)
    except ValueError:
        raise Unfit("", target.guess(text)) from None
    return text


def _module(value: object, _: str) -> str:
    text = value if isinstance(value, str) else ""
    if text == value and (text == "" or target.is_dotted(text)):
        return text
    near = text.removesuffix(".py").replace("/", ".").strip(".")
    raise Unfit("", near if target.is_dotted(near) else "")


def _url_path(value: object, _: str) -> str:
    if not isinstance(value, str) or not (value == "" or re.fullmatch(r"/[!\"$-~]*", value)):
        text = re.sub(r"^https?://[^/]*", "", value) if isinstance(value, str) else ""
        near = f"/{text.lstrip('/')}" if re.fullmatch(r"[!\"$-~]+", text) else ""
        raise Unfit("", near)
    return value


def _texts(value: object, _: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item and "\0" not in item for item in value):
        raise Unfit("", f"[{toml_text.quote(value)}]" if isinstance(value, str) and value else "")
    return tuple(value)


def _files(value: object, _: str) -> tuple[str, ...]:
    """One path, or a list of them."""
    return _texts([value] if isinstance(value, str) and value else value, _)


def _networks(value: object, _: str) -> tuple[str, ...]:
    # Here, because it costs 2 ms, and few configurations name networks.
    import ipaddress

    networks = _texts(value, _)
    for text in networks:
        try:
            text == "unix" or ipaddress.ip_network(text)
        except ValueError:
            try:
                near = str(ipaddress.ip_network(text, strict=False))  # 10.0.0.1/8
            except ValueError:
                near = ""
            raise Unfit("", near, found=text) from None
    return networks


def _yes_or_no(value: object, _: str) -> bool:
    if not isinstance(value, bool):
        raise Unfit("")
    return value


def _some_texts(value: object, _: str) -> tuple[str, ...]:
    texts = _texts(value, _)
    if not texts:
        raise Unfit("")
    return texts


def _variables(value: object, _: str) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise Unfit("")
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise Unfit("names of variables (letters, digits, _)", found=name)
        if not isinstance(text, str) or "\0" in text:
            raise Unfit(f"text in quotes as the value of {name}", found=text)
    return dict(value)


def _roles(value: object, _: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise Unfit("")
    for role, members in value.items():
        if role not in ROLES:
            raise Unfit(f"the roles {', '.join(ROLES)}", nearest(role, ROLES), found=role)
        if not isinstance(members, list) or not all(isinstance(name, str) and name.strip("%") for name in members):
            expected = f'a list of users and %groups for {role}, such as ["deploy", "%monitoring"]'
            raise Unfit(expected, found=members)
    return {role: tuple(members) for role, members in value.items()}


def _limits(value: object, _: str) -> Mapping[str, tuple[int, int]]:
    if not isinstance(value, dict):
        raise Unfit("")
    return {name: _limit(name, limit) for name, limit in value.items()}


def _limit(name: str, limit: object) -> tuple[int, int]:
    """Soft and hard."""
    if name not in RESOURCES:
        raise Unfit(f"the limits {', '.join(RESOURCES)}", nearest(name, RESOURCES), found=name)
    pair = limit if isinstance(limit, list) else [limit, limit]
    read_one = _bytes if RESOURCES[name].in_bytes else _any_count
    try:
        soft, hard = (UNLIMITED if one == "unlimited" else read_one(one, "") for one in pair)
    except ValueError:  # Unfit, too
        what = 'a size such as "2GiB"' if RESOURCES[name].in_bytes else "a whole number"
        raise Unfit(f'for {name} {what}, or "unlimited", or two of them: [soft, hard]', found=limit) from None
    if UNLIMITED != hard < soft or soft == UNLIMITED != hard:
        raise Unfit(f"a soft limit of {name} that is not above its hard one", found=limit)
    return soft, hard


def _any_count(value: object, _: str) -> int:
    return _count(value, f"0..{(1 << 62) - 1}")


def _show_limits(value: Mapping[str, tuple[int, int]]) -> str:
    return toml_text.spell({name: _shown_limit(soft) if soft == hard else tuple(map(_shown_limit, (soft, hard)))
                  for name, (soft, hard) in value.items()})  # fmt: skip


def _shown_limit(limit: int) -> int | str:
    return "unlimited" if limit == UNLIMITED else limit


KINDS: Final[Mapping[str, Kind]] = {
    "choice": Kind("one of the words", _choice),
    "switch": Kind("true, false or one of the words", _switch),
    "count": Kind("a whole number", _count),
    "formula": Kind("a whole number, or a formula", _formula),
    "duration": Kind('a time of at most 7 days, such as "30s", "5m", "500ms" or 1.5 (seconds)', _duration),
    "duration or 0": Kind('a time of at most 7 days, such as "30s", "5m" or 1.5 (seconds), or 0', _seconds),
    "size": Kind('a size such as "512MiB" (1024²), "1GB" (1000³) or a number of bytes', _size),
    "size or 0": Kind('a size such as "512MiB" (1024²), "1GB" (1000³) or a number of bytes, or 0', _bytes),
    "mode": Kind('an octal mode in quotes, such as "0660"', _required_mode),
    "mask": Kind('an octal mask in quotes, such as "0027"', _mode),
    "name": Kind("a name of a-z, 0-9, _ and -, at most 40, that begins with a letter", _name),
    "names": Kind('a list of names, such as ["web"]', _texts, listed=True),
    "app": Kind('"MODULE:ATTRIBUTE", "MODULE:FACTORY()" or "MODULE", such as "shop.wsgi:application"', _app),
    "path": Kind("a path in quotes", _text),
    "path or off": Kind('a path in quotes, or "off"', _text),
    "log path": Kind('a path in quotes, or "-"', lambda value, _: "" if value == "-" else _text(value, _)),
    "path or -": Kind('a path in quotes, or "-"', _text),
    "log format": Kind('common, combined, json, or a text such as "%(h)s %(r)s %(s)s"', _text),
    "module": Kind('the name of a module, such as "shop.hooks"', _module),
    "program": Kind('a program: a path, or a name on PATH such as "python3.12"', _text),
    "command": Kind('a list of words, such as ["ddtrace-run"]', _texts, listed=True),
    "folder": Kind("a folder in quotes", _text),
    "folders": Kind('a list of folders, such as ["src"]', _texts, listed=True),
    "addresses": Kind('a list of addresses, such as ["127.0.0.1:8000", "unix:/run/a.sock"]', _some_texts, listed=True),
    "files": Kind('a path in quotes, or a list of them, such as ["a.pem", "b.pem"]', _files, listed=True),
    "networks": Kind('a list of networks, such as ["10.0.0.0/8", "fd00::/8", "unix"]', _networks, listed=True),
    "rules": Kind('a list of rules, such as ["/healthz 2xx", "GET /static/*"]', _texts, listed=True),
    "yes or no": Kind("true or false", _yes_or_no),
    "words": Kind("text in quotes", _text),
    "statuses": Kind('a list of statuses and ranges, such as ["200-299", "301"]', _some_texts, listed=True),
    "url path": Kind('a path on the application, such as "/healthz"', _url_path),
    "url paths": Kind('a list of paths: ["/"]', lambda v, _: tuple(_url_path(p, _) for p in _texts(v, _)), listed=True),
    "user": Kind("the name of a user, in quotes", _text), "group": Kind("the name of a group, in quotes", _text),
    "variables": Kind('a table of text, such as { DJANGO_DEBUG = "0" }', _variables, tabled=True),
    "limits": Kind('a table of limits, such as { nofile = 4096, core = 0, as = "2GiB" }', _limits, tabled=True),
    "roles": Kind('a table of lists, such as { operator = ["deploy"], viewer = ["%monitoring"] }', _roles, tabled=True),
}  # fmt: skip
