"""The command line of `srvd` with all its commands, help and errors: `start`, `check`, `config`, `help`, `version`.

Reads the configuration, prints its problems, and hands over to the daemon. `srvctl` is the program for running daemons.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from srvd import __version__
from srvd.cli.flags import SHORT, Asked, completed, flags, refused_value, without_effect
from srvd.cli.importing import import_
from srvd.cli.saying import complain, say_line, say_warning
from srvd.cli.start import start as start_daemon
from srvd.config import gunicorn, show, values
from srvd.config.settings import TABLES, Config, declared
from srvd.config.source import Source
from srvd.errors import EXIT, BadArgs, SrvdError
from srvd.usage import nearest_option, sentence, show_topic, unknown_command

__all__ = ["cli", "main"]

_GROUP_HELP = """A pre-fork application server for WSGI, with a control socket and safe reloads.

\b
  srvd start                          the built-in demo on http://127.0.0.1:8000
  srvd start shop.wsgi:application    your application
  srvd start -c shop.toml             everything from a file
  srvd check -c shop.toml             would it start? changes nothing
  srvd config -c shop.toml            every value in force, and where it comes from
  srvd import gunicorn.conf.py        a srvd.toml of gunicorn's configuration
  srvd help workers                   what a setting does; `srvd help` lists the manual's pages

The running daemon is controlled with srvctl: srvctl status, srvctl scale 8, srvctl reload, srvctl stop.
"""

_START_HELP = """Start the daemon: APP is MODULE:ATTRIBUTE or MODULE:FACTORY().

\b
  srvd start shop.wsgi:application --bind :8000 --workers 4
  srvd start "shop:create_app()" --bind unix:/run/shop/web.sock
  srvd start -c /etc/shop/srvd.toml --log-level debug

Without -c, ./srvd.toml is read if it exists. Later sources win: defaults, PORT and WEB_CONCURRENCY, the file, SRVD_
variables, flags. The daemon stays in the foreground and logs to standard error. With --daemonize, the command returns
when the pools serve, or with the reason why they do not. ^C stops the daemon. Closing the terminal does not: that sends
a HUP, which reloads.

Flags of gunicorn that mean the same are flags here, too; those that srvd does without are passed over.

Exit codes: 0 asked to stop, 1 the application never came up, 71 the system refused a port or a socket, 78 the
configuration is wrong.
"""

_CHECK_HELP = """Check the configuration, and try to start each application with one worker.

\b
  srvd check -c /etc/shop/srvd.toml && srvctl reload

The worker is probed as at a start, and then ends. No port is opened, so whether the ports are free is not checked. A
running daemon is not touched. Exit codes: 0 it would start, 1 an application does not come up (with its traceback), 71
a file of the daemon cannot be written, 78 the configuration is wrong (all problems at once).
"""

_CONFIG_HELP = """Show every setting with its value and where the value comes from.

\b
  srvd config -c shop.toml --workers 8
  srvd config --json | jq '.settings[] | select(.origin != "default")'

The output is itself a configuration file. Secrets are shown as ***, and their lines are comments.
"""


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Adds APP, -c and a flag for each setting that declares one. Each arrives as a parameter of its flag's name."""
    for flag, setting in reversed(flags().items()):
        if flag == "APP":
            continue
        base, _, words = setting.kind.partition(":")
        many = base == "addresses"
        metavar = {
            "addresses": "ADDR",
            "count": "N",
            "formula": "N",
            "log path": "PATH",
            "choice": words,
            "switch": "[on|safe]",
        }.get(base, base.upper())
        about = f"{setting.help}{'; may be repeated' if many else ''}."
        short = [word for word, meant in SHORT.items() if meant == flag]
        command = click.option(flag, *short, multiple=many, metavar=metavar, help=about)(command)
    command = click.option("-c", "--config", "path", metavar="FILE", help="Configuration file (TOML).")(command)
    for known, takes in without_effect():
        command = click.option(
            *known, is_flag=not takes, hidden=True, expose_value=False, callback=_pass_over, type=str if takes else bool
        )(command)
    return click.argument("app", required=False)(command)


def _given(parameters: dict[str, Any]) -> dict[str, object]:
    """Returns the parameters that were given, by flag."""
    named = {flag: parameters[flag.lstrip("-").replace("-", "_").lower()] for flag in flags()}
    return {flag: value for flag, value in named.items() if value not in (None, ())}


def _pass_over(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Says why a flag of gunicorn has no effect, or refuses its value."""
    if value in (None, False) or ctx.resilient_parsing:
        return
    problem = refused_value(param.opts[-1], value)
    if problem:
        raise click.UsageError(problem, ctx)
    about = gunicorn.translation(param.opts[-1].lstrip("-").replace("-", "_"))[1]
    say_warning(f"{param.opts[-1]} has no effect: {about}")


def _check_itself(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from srvd.daemon.entry import self_check  # here, because it imports everything

        ctx.exit(self_check.run())


FOREIGN = {
    "restart": "`srvctl reload` loads new code; to begin anew, `srvctl stop` and `srvd start`",
    "run": "did you mean start?",
    "serve": "did you mean start?",
}
"""Commands of other servers, and what to use here."""

OF_SRVCTL = ("ping", "status", "workers", "scale", "reload", "rollback", "recycle", "pause", "resume", "reopen",
             "upgrade", "stop", "why", "dump", "history", "events", "op")  # fmt: skip
"""Commands of `srvctl` that people type after `srvd`. A copy: importing the declarations would slow down `srvd`."""


class _Commands(click.Group):
    """The commands of `srvd`; explains those of `srvctl` and of other servers."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and args[0] in OF_SRVCTL:
            ctx.fail(f"{args[0]!r} is no command of srvd, which starts daemons; of one that runs: srvctl {args[0]}")
        if args and (":" in args[0] or args[0].endswith((".py", ".toml"))):
            given = f"-c {args[0]}" if args[0].endswith(".toml") else args[0]
            ctx.fail(f"there is no command {args[0]!r}; did you mean `srvd start {given}`?")
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            ctx.fail(unknown_command(args[0], self.commands, FOREIGN))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands, help=_GROUP_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "--version", "-V", prog_name="srvd", message="%(prog)s %(version)s")
@click.option("--self-check", is_flag=True, is_eager=True, expose_value=False, callback=_check_itself,
              help="Import everything and print the version, as an upgrade does first.")  # fmt: skip
def cli() -> None:
    pass


@cli.command(help=_START_HELP, short_help="Start the daemon.")
@_with_settings
@click.option("--daemonize", "-D", "--daemon", is_flag=True, help="Return when the pools serve, and run on in the "
              "background; without --log-file, the log ends there.")  # fmt: skip
def start(path: str | None, daemonize: bool, **given: Any) -> None:
    sys.exit(start_daemon(Asked(path, _given(given), daemonize)))


@cli.command(help=_CHECK_HELP, short_help="Check the configuration and try the applications; change nothing.")
@_with_settings
@click.option("-v", "--verbose", is_flag=True, help="Show all of a traceback, not only the application's own lines.")
def check(path: str | None, verbose: bool, **given: Any) -> None:
    config = Source.find(path, _given(given)).read()
    from srvd.daemon.entry import file_check, load_check  # here, because `config` and `version` start no process

    _warn(config)
    code = EXIT.DONE
    for refused in file_check.look_at_files(config):
        complain(refused)
        code = refused.exit_code
    for pool in config.pools.values():
        try:
            tried = load_check.try_start(config, pool.name, partial(say_line, pool.name))
        except SrvdError as error:
            complain(error, verbose=verbose)
            code = code or EXIT.FAILED
            continue
        for text in (*tried.notes, *tried.warnings):
            say_warning(text if text.startswith(f"{pool.name}: ") else f"pool {pool.name}: {text}")
        probed = f"GET {pool.health} was healthy" if pool.health else f"not probed: pools.{pool.name}.health is not set"
        click.echo(f"pool {pool.name}: {pool.app} was ready after {tried.seconds:.2f} s; {probed}")
    if code == EXIT.DONE:
        click.echo(f"{config.path or 'the configuration'} is good: {_count(config)}; ports were not tried")
    sys.exit(code)


@cli.command(help=_CONFIG_HELP, short_help="Show every setting, its value and its origin.")
@_with_settings
@click.option("--json", "as_json", is_flag=True, help="Print JSON: times in seconds, sizes in bytes.")
def config(path: str | None, as_json: bool, **given: Any) -> None:
    config = Source.find(path, _given(given)).read()
    if as_json:
        click.echo(json.dumps({"schema": 1, **show.as_map(config)}, indent=2, ensure_ascii=False))
        return
    _warn(config)
    click.echo(show.as_toml(config), nl=False)


@cli.command("help", short_help="Explain a command, a setting or a page of the manual.")
@click.argument("topic", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, topic: tuple[str, ...]) -> None:
    """Explain TOPIC: a command, a setting (max_rss), or a page of the manual that came with this version (systemd).

    \b
      srvd help                       what there is
      srvd help request_timeout
      srvd help gunicorn | less
    """
    show_topic(ctx, cli, topic, ("srvctl", OF_SRVCTL))


cli.add_command(import_)


@cli.command(short_help="Show the version.")
def version() -> None:
    """Show the version."""
    click.echo(f"srvd {__version__}")


def _count(config: Config) -> str:
    workers = sum(pool.workers for pool in config.pools.values())
    pools = ", ".join(config.pools)
    return f"{len(config.pools)} pool{'s' if len(config.pools) > 1 else ''} ({pools}) with {workers} workers"


def _warn(config: Config) -> None:
    for warning in config.warnings:
        say_warning(warning)


def _about_option(option: str) -> str:
    """Says what an unknown option was probably meant to be, and where to set it."""
    name = option.lstrip("-").replace("-", "_")
    called, sentence = gunicorn.translation(name)
    if sentence:
        return sentence
    if called:
        flag = next((flag for table in TABLES for known, one in declared(table).items() if known == called
                     for flag in [one.flag] if flag), "")  # fmt: skip
        return f"it is called {flag} here" if flag else f"it is called {called} here; {_where_to_say(called)}"
    where = _where_to_say(name)
    if where:
        return where
    near = nearest_option(option, [*flags(), "--config", "--daemonize", "--json"])
    if near:
        return f"did you mean {near}?"
    return "what has no flag is set in the file, or by a SRVD_ variable: `srvd help settings`"


def _where_to_say(name: str) -> str:
    """Says where a setting without a flag is set; "" for anything else."""
    for table in TABLES:
        setting = declared(table).get(name)
        if setting is not None and not setting.flag:
            kind = values.KINDS[setting.kind.partition(":")[0]]
            return f"{name} has no flag: set it in the file" + ("" if kind.tabled else f", or SRVD_{name.upper()}")
    return ""


def _complain_of_usage(exc: click.ClickException) -> None:
    ctx = (exc.ctx if isinstance(exc, click.UsageError) else None) or click.Context(cli, info_name="srvd")
    about = _about_option(exc.option_name) if isinstance(exc, click.NoSuchOption) else f"{ctx.command_path} --help"
    complain(BadArgs(sentence(exc), hint=about))


def main() -> None:
    """Runs a command of `srvd`, and ends the process with its exit code."""
    try:
        cli.main(completed(sys.argv[1:]), prog_name="srvd", standalone_mode=False)
        code = EXIT.DONE
    except click.ClickException as exc:
        _complain_of_usage(exc)
        code = EXIT.USAGE
    except click.Abort:
        code = EXIT.INTERRUPTED
    except SrvdError as error:
        complain(error)
        code = error.exit_code
    except Exception as exc:  # the process ends here
        sys.excepthook(type(exc), exc, exc.__traceback__)
        code = EXIT.BUG
    sys.exit(code)
