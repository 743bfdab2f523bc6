"""Brings a configuration or a start line of another server together into files for srvd and a report.

Order, as gunicorn has it: the file, then GUNICORN_CMD_ARGS, then the flags of the line. Writes no file: `cli/` does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from srvd.config.gunicorn import OPTIONS, kind_of_class
from srvd.config.spelling.toml_text import quote, spell
from srvd.errors import ConfigInvalid
from srvd.migrate import hooks, line, settings, sources, syntax, uwsgi, uwsgi_text
from srvd.migrate.report import Finding
from srvd.migrate.settings import Entry
from srvd.migrate.sources import Found
from srvd.nearest import nearest
from srvd.record import Record

__all__ = ["DEFAULT", "Result", "Wanted", "convert"]

DEFAULT: Final = "gunicorn.conf.py"

_TABLES: Final = ("daemon", "control", "listeners.web", "pools.web")
_MEANT: Final = {
    "preload": "preload_app",
    "name": "proc_name",
    "port": "bind",
    "pid": "pidfile",
    "debug": "loglevel",
    "log_level": "loglevel",
    "log_file": "errorlog",
    "logfile": "errorlog",
    "command": "wsgi_app",
}
"""Names that gunicorn ignores, and the settings of it that their authors meant."""

_OURS: Final = {"max_worker_age": "max_age", "max_worker_connections": "max_connections"}
"""Names that gunicorn ignores, and the settings of srvd that do what they say."""


_CHECK: Final = Finding("next", "", "srvd check -c srvd.toml && srvd start -c srvd.toml")
_MOST_FILES: Final = 20  # of uWSGI, one included by another


class Wanted(Record):
    """What is to be imported. path: of a configuration; "": none. line: the start line. folder: in which both hold."""

    path: str
    line: line.Line
    folder: str
    python: str
    command_args: str = ""  # GUNICORN_CMD_ARGS
    name: str = ""  # of the instance, if the source does not give one
    secrets: bool = False


class Result(Record):
    """files: the texts to write, by name. findings: what is to be told."""

    files: Mapping[str, str]
    findings: tuple[Finding, ...]


def convert(wanted: Wanted) -> Result:
    """Returns the files and the report. Raises `ConfigInvalid` for a source that cannot be read."""
    if wanted.line.program == "uwsgi":
        return _of_uwsgi(wanted)
    app, values = wanted.line.app, dict(wanted.line.values)
    findings: list[Finding] = []
    if wanted.command_args and wanted.line.program == "gunicorn":
        early_app, early = line.read_flags(line.split(wanted.command_args))
        app, values = app or early_app, {**early, **values}
    path = str(values.pop("config", "")) or (wanted.path if wanted.line.program == "gunicorn" else "")
    held: dict[str, Found] = {}
    moved, where = hooks.Moved("", ()), _nowhere
    if path:
        held, moved, where, told = _of_file(wanted, path.removeprefix("file:"))
        findings += told
    held |= {name: Found(value) for name, value in values.items()}
    name = wanted.name or os.path.basename(wanted.folder)
    translated = settings.translate(app, held, where, name=name, secrets=wanted.secrets)
    findings += [*translated.findings, *moved.findings, *_of_line(wanted.line)]
    entries = [*translated.entries, *_wrapper(wanted.line)]
    if moved.text:
        entries.append(Entry("pools.web", "hooks", quote(hooks.MODULE), "hooks that do something"))
    files = {"srvd.toml": _toml(entries, path or f"a start line of {wanted.line.program}")}
    if moved.text:
        files[f"{hooks.MODULE}.py"] = moved.text
        if "chdir" in held:
            text = f"{hooks.MODULE}.py has to be where the application is imported from: its folder is chdir"
            findings.append(Finding("next", "", text))
    return Result(files, (*findings, _CHECK))


def _of_uwsgi(wanted: Wanted) -> Result:
    """Files before flags, as most start lines have them; of an option that is given twice, the later counts."""
    given = wanted.line.given
    options = [uwsgi_text.Option("chdir", wanted.line.values["chdir"])] if "chdir" in wanted.line.values else []
    findings: list[Finding] = []
    used = frozenset[str]()
    waiting, read = list(given.ini), list[str]()
    while waiting and len(read) < _MOST_FILES:
        read.append(waiting.pop(0))
        found = _ini(wanted, read[-1])
        waiting += [one.text for one in found.options if one.name == "ini" and one.text not in read]
        options += [one for one in found.options if one.name != "ini"]
        findings += found.findings
        used |= found.used
    together = uwsgi_text.Given((*options, *given.options), tuple(findings), used)
    name = wanted.name or os.path.basename(wanted.folder)
    path = read[0] if read else ""
    translated = uwsgi.translate(together, path, name, secrets=wanted.secrets)
    files = {"srvd.toml": _toml([*translated.entries, *_wrapper(wanted.line)], path or "a start line of uwsgi")}
    return Result(files, (*translated.findings, *_of_line(wanted.line), _CHECK))


def _ini(wanted: Wanted, named: str) -> uwsgi_text.Given:
    """Reads a file of uWSGI. One of a container is looked for here by its path below the container's folder."""
    path, _, section = named.partition(":")
    inside = path.removeprefix(f"{wanted.line.values.get('chdir', '').rstrip('/')}/")
    whole = next(
        (one for one in (os.path.join(wanted.folder, each) for each in (path, inside)) if os.path.exists(one)),
        os.path.join(wanted.folder, path),
    )
    try:
        with open(whole, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigInvalid(f"read {path}: {reason}; nothing was written") from exc
    return uwsgi_text.of_file(path, whole, text, section or "uwsgi")


def _wrapper(found: line.Line) -> list[Entry]:
    wrapper = found.wrapper
    return [Entry("pools.web", "wrap", spell(wrapper), f"in front of {found.program}")] if wrapper else []


def _nowhere(_: str) -> str:
    return ""


def _of_file(wanted: Wanted, path: str) -> tuple[dict[str, Found], hooks.Moved, Any, list[Finding]]:
    """What the configuration sets, its hooks, where its names are, and what is told of it."""
    whole = os.path.join(wanted.folder, path)
    try:
        tree = syntax.read(whole, path)
    except (OSError, SyntaxError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigInvalid(f"read {path}: {reason}; nothing was written") from exc
    found = sources.examine(whole, wanted.python, wanted.folder, OPTIONS, tree)
    told = [*found.findings, *(_dead(tree, name) for name in tree.dead(OPTIONS))]
    named = found.settings.get("worker_class")
    if tree.patches and named is not None and kind_of_class(str(named.value)) == "gevent":
        told.append(Finding("needless", path, "it patches the process for gevent: srvd does before it loads anything"))
    elif tree.patches:
        told.append(Finding("refused", path, 'it patches the process for greenlets: `engine = "gevent"` does'))
    moved = hooks.move(tree, {name: one.value for name, one in found.settings.items()})
    return dict(found.settings), moved, tree.where, told


def _dead(tree: syntax.Syntax, name: str) -> Finding:
    meant = _MEANT.get(name) or ("" if name in _OURS else nearest(name, OPTIONS))
    ours = _OURS.get(name) or (OPTIONS[meant].called if meant else "")
    text = f"{name}: gunicorn has no such setting{f'; did you mean {meant}?' if meant else ''}"
    return Finding("dead", tree.where(name), f"{text}; srvd has {ours}" if ours else text)


def _of_line(found: line.Line) -> list[Finding]:
    findings = [
        Finding("asked for", "", f"{name} is set in front of the line: set it for srvd, too, or in env of the pool")
        for name in found.environ
        if name != "GUNICORN_CMD_ARGS"
    ]
    if found.before:
        findings.append(Finding("asked for", "", f"{' '.join(found.before)} stands in front: put it before srvd, too"))
    return findings


def _toml(entries: list[Entry], source: str) -> str:
    lines = [f"# made by srvd import from {source}"]
    for table in _TABLES:
        held = [one for one in entries if one.table == table]
        if held:
            width = min(44, max(len(f"{one.key} = {one.text}") for one in held))
            lines += ["", f"[{table}]"]
            lines += [f"{f'{one.key} = {one.text}':{width}}  # {one.comment}" for one in held]
    return "\n".join(lines) + "\n"
