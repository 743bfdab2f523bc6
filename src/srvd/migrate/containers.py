"""Finds the start line in a Procfile, a Dockerfile, a unit of systemd, a program of supervisord, a file of uWSGI.

Executes nothing. Pure.
"""

from __future__ import annotations

import configparser
import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from srvd.errors import ConfigInvalid
from srvd.migrate import unit
from srvd.migrate.line import is_server, split
from srvd.migrate.report import Finding
from srvd.record import Record

__all__ = ["Container", "kind_of", "read"]


class Container(Record):
    """words: of the start line. folder: that it is started in; "": not said. name: of the service or program.
    files: to write besides, by name.
    """

    words: Sequence[str]
    folder: str = ""
    name: str = ""
    findings: tuple[Finding, ...] = ()
    files: Mapping[str, str] = MappingProxyType({})


def kind_of(path: str, text: str) -> str:
    """Returns "Procfile", "Dockerfile", "unit", "uwsgi" or "supervisor"; "" for none of them."""
    name = path.rpartition("/")[2]
    if name.startswith("Procfile"):
        return "Procfile"
    if "Dockerfile" in name or name == "Containerfile":
        return "Dockerfile"
    if name.endswith(".service") or re.search(r"^ExecStart\s*=", text, re.MULTILINE):
        return "unit"
    if re.search(r"^\s*\[uwsgi\]", text, re.MULTILINE):
        return "uwsgi"
    return "supervisor" if re.search(r"^\[program:", text, re.MULTILINE) else ""


def read(path: str, text: str, program: str = "") -> Container:
    """Returns the start line of a file. program: of several in it. Raises `ConfigInvalid` if there is none."""
    readers: dict[str, Callable[[str, str, str], Container]] = {
        "Procfile": _procfile,
        "Dockerfile": _dockerfile,
        "unit": _unit,
        "uwsgi": _uwsgi,
        "supervisor": _supervisor,
    }
    return readers[kind_of(path, text)](path, text.replace("\\\n", " "), program)


def _uwsgi(path: str, _: str, __: str) -> Container:
    name = path.rpartition("/")[2].removesuffix(".ini")
    return Container(["uwsgi", "--ini", path], name="" if name == "uwsgi" else name)


def _procfile(path: str, text: str, program: str) -> Container:
    lines = dict(line.split(":", 1) for line in text.splitlines() if re.match(r"[A-Za-z0-9_-]+:", line))
    wanted = program or "web"
    if wanted not in lines:
        raise _none(path, f"has no process {wanted}", sorted(lines))
    others = [name for name in lines if name != wanted]
    told = (
        [Finding("asked for", path, f"{', '.join(others)}: not read; srvd runs web processes alone")] if others else []
    )
    return Container(split(lines[wanted]), findings=tuple(told))


def _dockerfile(path: str, text: str, _: str) -> Container:
    found: dict[str, str] = {}
    told = []
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.upper() in ("CMD", "ENTRYPOINT", "WORKDIR", "USER"):
            found[word.upper()] = rest.strip()
        if word.upper() == "ENV" and re.match(r"GUNICORN_CMD_ARGS\b", rest):
            told.append(Finding("asked for", path, f"ENV {rest}: give it with --command-args"))
    words = [*_words(found.get("ENTRYPOINT", "")), *_words(found.get("CMD", ""))]
    if not _starts(words):
        raise _none(path, "has no CMD or ENTRYPOINT with gunicorn", [])
    if "USER" in found:
        told.append(Finding("needless", path, f"USER {found['USER']}: it stays in the Dockerfile"))
    return Container(words, found.get("WORKDIR", ""), findings=tuple(told))


def _words(text: str) -> list[str]:
    """The words of CMD or ENTRYPOINT, which are a list in JSON or a line for the shell."""
    if text.startswith("["):
        try:
            words = [str(word) for word in json.loads(text)]
        except ValueError as exc:
            raise ConfigInvalid(f"read {text!r}: {exc}; nothing was written") from exc
        # sh -c "exec gunicorn …"
        return split(words[-1]) if len(words) == 3 and words[1] == "-c" else words
    return split(text)


def _unit(path: str, text: str, _: str) -> Container:
    pairs: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.lstrip().startswith(("#", ";")):
            pairs[key.strip()] = value.strip()
    words = split(pairs.get("ExecStart", "").lstrip("-@:+!"))
    if not _starts(words):
        raise _none(path, "has no ExecStart with gunicorn", [])
    folder = pairs.get("WorkingDirectory", "")
    program = next(word for word in words if is_server(word))
    made, told = unit.made_of(path, text, words[0] if program != words[0] and "/" in words[0] else program, folder)
    kept = [
        Finding("needless", path, f"{key}={pairs[key]}: it stays in the unit")
        for key in ("User", "Group", "EnvironmentFile", "RuntimeDirectory")
        if key in pairs
    ]
    name = path.rpartition("/")[2].removesuffix(".service")
    return Container(words, folder, name, (*kept, *told), {unit.name_of(path): made})


def _supervisor(path: str, text: str, program: str) -> Container:
    parser = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";",))
    try:
        parser.read_string(text)
    except configparser.Error as exc:
        raise ConfigInvalid(f"read {path}: {exc}; nothing was written") from exc
    programs = {
        name.removeprefix("program:"): parser[name]
        for name in parser.sections()
        if name.startswith("program:") and _starts(split(parser[name].get("command", "")))
    }
    wanted = program or (next(iter(programs)) if len(programs) == 1 else "")
    if wanted not in programs:
        raise _none(
            path, f"has no program {wanted} with gunicorn" if wanted else "--program names one", sorted(programs)
        )
    held = programs[wanted]
    told = [
        Finding("needless", path, f"{key}={held[key]}: it stays there")
        for key in ("user", "autorestart")
        if key in held
    ]
    if held.get("environment"):
        names = re.findall(r"([A-Za-z_][A-Za-z0-9_]*)=", held["environment"])
        told.append(Finding("needless", path, f"environment with {', '.join(names)}: it stays there"))
    told += [
        Finding("changed", path, f"{key}: take it out; workers of srvd are in sessions of their own")
        for key in ("stopasgroup", "killasgroup")
        if held.get(key) == "true"
    ]
    return Container(split(held["command"]), held.get("directory", ""), wanted, tuple(told))


def _starts(words: Sequence[str]) -> bool:
    return any(is_server(word) for word in words)


def _none(path: str, what: str, known: Sequence[str]) -> ConfigInvalid:
    hint = f"it has {', '.join(known)}" if known else ""
    return ConfigInvalid(f"read {path}: it {what}; nothing was written", hint=hint)
