"""`srvd import`: writes srvd.toml for a configuration or a start line of gunicorn, and tells what becomes of the rest.

Translates nothing itself: `migrate/` does.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from srvd.config.load import load
from srvd.errors import EXIT, ConfigInvalid
from srvd.migrate import containers, line
from srvd.migrate.convert import DEFAULT, Result, Wanted, convert
from srvd.migrate.report import Finding, as_map, as_text, exit_code
from srvd.migrate.unreadable import UnreadableSource
from srvd.record import Record

__all__ = ["import_"]

_HELP = """Make srvd.toml of a configuration or a start line of gunicorn.

\b
  srvd import                                      ./gunicorn.conf.py
  srvd import config/gunicorn.py shop.wsgi         a configuration, and the application
  srvd import -- gunicorn -w 4 -b :8000 shop.wsgi  a start line, also of uvicorn, hypercorn, granian
  srvd import Procfile                             or a Dockerfile, a unit of systemd, a file of supervisord
  srvd import uwsgi.ini                            a configuration of uWSGI, or a start line of it
  srvd import --check gunicorn.conf.py && …        can it move? writes nothing

The configuration is executed in processes of its own, several times with other environments, to find out what depends
on what: variables become ${NAME:-DEFAULT}, numbers of processors formulas. One that acts while it is read (it makes
folders, sends requests) is executed once. The report names all that does not move, with its reason.

Exit codes: 0 all of it moves, 10 the report has something to look at, 1 srvd cannot run it (nothing is written without
--anyway), 65 the source cannot be read, 73 a file exists (--force), 2 the command line is wrong.
"""


class _Options(Record):
    output: str
    force: bool
    check: bool
    anyway: bool
    as_json: bool


@click.command("import", help=_HELP, short_help="Make srvd.toml of a configuration or a start line of gunicorn.")
@click.argument("words", nargs=-1)
@click.option("-o", "--output", default="srvd.toml", metavar="FILE", help="Write this file; -: to standard output.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--check", is_flag=True, help="Write nothing; the exit code is the same.")
@click.option("--anyway", is_flag=True, help="Write the files even if srvd cannot run this.")
@click.option("--json", "as_json", is_flag=True, help="Print files and report as JSON; write nothing.")
@click.option(
    "--python", default=sys.executable, metavar="PROGRAM", help="Interpreter that executes the configuration."
)
@click.option("--program", default="", metavar="NAME", help="Process of a Procfile, or program of supervisord.")
@click.option("--command-args", default="", metavar="TEXT", help="GUNICORN_CMD_ARGS, as the source is started with.")
@click.option("--secrets", is_flag=True, help="Copy variables that may be secret, too.")
def import_(
    words: tuple[str, ...],
    output: str,
    force: bool,
    check: bool,
    anyway: bool,
    as_json: bool,
    python: str,
    program: str,
    command_args: str,
    secrets: bool,
) -> None:
    options = _Options(output, force, check, anyway, as_json)
    try:
        wanted, told, files = _wanted(words, program)
        arguments = command_args or wanted.line.environ.get("GUNICORN_CMD_ARGS", "")
        result = convert(wanted._replace(python=python, command_args=arguments, secrets=secrets))
    except ConfigInvalid as exc:
        raise UnreadableSource(exc.message, hint=exc.hint, detail=exc.detail) from exc
    result = Result({**result.files, **files}, (*told, *result.findings, *_checked(result.files, Path(output).parent)))
    sys.exit(_hand_over(result, options))


def _wanted(words: tuple[str, ...], program: str) -> tuple[Wanted, tuple[Finding, ...], Mapping[str, str]]:
    """Says what is to be imported, what its container tells, and the files that come of that one."""
    folder = os.getcwd()
    empty = line.Line("gunicorn", "", {}, {})
    if any(line.is_server(word) for word in words) or (len(words) == 1 and " " in words[0]):
        found = line.read(line.split(words[0]) if len(words) == 1 else [line.referred(word) for word in words])
        return Wanted(_usual(folder) if "config" not in found.values else "", found, folder, ""), (), {}
    path = words[0] if words else DEFAULT
    text = _text(path)
    if containers.kind_of(path, text):
        held = containers.read(path, text, program)
        found = line.read(held.words)
        values = {"chdir": held.folder, **found.values} if held.folder else found.values
        return Wanted("", found._replace(values=values), folder, "", name=held.name), held.findings, held.files
    app = words[1] if len(words) > 1 else ""
    return Wanted(path, empty._replace(app=app), folder, ""), (), {}


def _usual(folder: str) -> str:
    """The configuration that gunicorn reads by itself; "" if it is not there."""
    return DEFAULT if os.path.exists(os.path.join(folder, DEFAULT)) else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"read {path}: {exc}; nothing was written") from exc


def _checked(files: Mapping[str, str], folder: Path) -> tuple[Finding, ...]:
    """What srvd says of the file with the environment of this command, on this machine, and in the folder where it is
    to be: relative paths in it begin there.
    """
    if not files:
        return ()
    environ = {name: text for name, text in os.environ.items() if not name.startswith("SRVD_")}
    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(files["srvd.toml"])
        file.flush()
        try:
            load(file.name, {}, environ, home=str(folder.absolute()))
        except ConfigInvalid as exc:
            problems = exc.detail["problems"]
            assert isinstance(problems, list)
            return tuple(Finding("asked for", "", f"srvd check, here: {one['key']}: {one['text']}") for one in problems)
    return ()


def _hand_over(result: Result, options: _Options) -> int:
    """Writes or prints the result, and returns the exit code."""
    code = exit_code(result.findings)
    if options.as_json:
        click.echo(json.dumps(as_map(result.findings, result.files, code), indent=2, ensure_ascii=False))
        return code
    click.echo(as_text(result.findings), err=True, nl=False)
    if options.check or not result.files or (code == 1 and not options.anyway):
        return code
    if options.output == "-":
        for name, text in result.files.items():
            click.echo(text if name == "srvd.toml" else f"# {name}\n{text}", nl=False)
        return code
    target = Path(options.output)
    paths = {target if name == "srvd.toml" else target.parent / name: text for name, text in result.files.items()}
    there = [str(path) for path in paths if path.exists() and not options.force]
    if there:
        click.echo(f"error: {', '.join(there)} exists; nothing was written (--force replaces it)", err=True)
        return EXIT.EXISTS
    for path, text in paths.items():
        path.write_text(text, encoding="utf-8")
        click.echo(f"wrote {path}", err=True)
    return code
