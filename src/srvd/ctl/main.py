"""The entry of `srvctl`: builds the tree of commands, and turns every error into its exit code.

Does not talk to the daemon: each command is declared in wire/commands.py and run by commands.py.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any

import click

from srvd import __version__
from srvd.client.find import Named
from srvd.ctl.commands import Asked, Interrupted, report, run
from srvd.ctl.options import JSON, arguments, options
from srvd.ctl.render import put
from srvd.errors import EXIT, BadArgs, SrvdError
from srvd.usage import nearest_option, sentence, show_topic, unknown_command
from srvd.wire import commands as wire

__all__ = ["cli", "main"]

HELP = """Show and control a running srvd.

A single daemon is found without options. With several, choose one with -n or -s, or set SRVD_NAME or SRVD_SOCKET. Each
command returns when its effect is complete, or says why it failed; the exit code tells a script the same. A TIME is
written 30s, 5m or 500ms; a number alone is seconds.

\b
Examples:
  srvctl status
  srvctl scale +2
  srvctl reload && echo deployed
  srvctl why
"""

FOREIGN = {
    "kill": "`srvctl recycle WORKER` replaces a worker, `srvctl stop --now` ends the daemon",
    "logs": "`srvctl events -f` follows what happens; the log is in log_file, else on the daemon's standard error",
    "restart": "`srvctl reload` loads new code; to begin anew, `srvctl stop` and `srvd start`",
    "start": "srvd starts daemons: `srvd start`",
    "top": "`srvctl workers` shows what each worker does; `watch srvctl workers` shows it again",
}
"""Commands that are typed by habit, and what to use here."""

OF_SRVD = ("start", "check")
"""Commands of `srvd` that `srvctl` does not have."""

EPILOG = """\b
Exit codes:
{codes}

\b
Completion, with the names of your pools:
  eval "$(_SRVCTL_COMPLETE=bash_source srvctl)"      (zsh_source, fish_source)
"""


class Wired(click.Command):
    """A command as wire/commands.py declares it."""

    def __init__(self, entry: wire.Command) -> None:
        examples = "\n".join(f"  {example}" for example in entry.examples)
        text = "\n\n".join(part for part in (f"{entry.summary}.", entry.help, f"\b\nExamples:\n{examples}") if part)
        # `-2` is a SIZE: unknown options are taken for arguments.
        settings = {"ignore_unknown_options": True} if entry.name == "scale" else {}
        super().__init__(
            entry.words[-1], params=options(entry), help=text, short_help=entry.summary, context_settings=settings
        )
        self.entry = entry

    def invoke(self, ctx: click.Context) -> int:
        top, given = ctx.find_root().params, ctx.params
        asked = Asked(
            self.entry,
            arguments(self.entry, ctx),
            Named(top["socket"] or "", top["name"] or ""),
            as_json=given[JSON] or top[JSON],
            patience=given.get("patience") or 0.0,
            follow=bool(given.get("follow")),
        )
        return run(asked)


class Tree(click.Group):
    """A group of declared commands, in the order of their declaration. Suggests the nearest one for an unknown word.

    A command is made when it is called: making all of them takes longer than asking the daemon.
    """

    def __init__(self, name: str, entries: Mapping[str, wire.Command], summary: str) -> None:
        super().__init__(name, help=summary, short_help=summary)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.entries, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.entries.get(cmd_name)
        return Wired(entry) if entry is not None else self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            ctx.fail(unknown_command(args[0], names, FOREIGN))
        return super().resolve_command(ctx, args)


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        put(f"srvctl {__version__}")
        ctx.exit()


def _help_command(top: Tree) -> click.Command:
    @click.pass_context
    def show(ctx: click.Context, topic: tuple[str, ...]) -> None:
        show_topic(ctx, top, topic, ("srvd", OF_SRVD))

    text = "Explain a command, a setting or a page of the manual"
    return click.Command(
        "help", params=[click.Argument(["topic"], nargs=-1)], callback=show, short_help=text,
        help=f"{text} that came with this version.",
    )  # fmt: skip


def _tree() -> Tree:
    codes = "\n".join(f"  {code:<4} {text}" for program, code, text in EXIT.MEANINGS if program == "srvctl")
    top = Tree("srvctl", {entry.words[0]: entry for entry in wire.COMMANDS if len(entry.words) == 1}, HELP)
    of_op = {entry.words[1]: entry for entry in wire.COMMANDS if entry.words[0] == "op"}
    top.add_command(Tree("op", of_op, "List, show, follow and cancel operations"))
    top.add_command(_help_command(top))
    top.add_command(click.Command("version", callback=lambda: put(f"srvctl {__version__}"), help="Show the version."))
    top.epilog = EPILOG.format(codes=codes)
    top.context_settings = {"help_option_names": ["--help", "-h"]}
    version = click.Option(
        ["--version", "-V"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version",
    )
    top.params = [
        click.Option(["--socket", "-s"], metavar="SOCKET", help="Path of the control socket"),
        click.Option(["--name", "-n"], metavar="NAME", help="Name of the daemon"),
        click.Option(["--json", JSON], is_flag=True, help="Print the daemon's answers as JSON"),
        version,
    ]
    return top


cli = _tree()


def main() -> None:
    """Runs `srvctl` with the arguments of the process, and ends it with the exit code."""
    sys.exit(_run(sys.argv[1:]))


def _misused(exc: click.ClickException) -> BadArgs:
    ctx = exc.ctx if isinstance(exc, click.UsageError) else None
    near = ""
    if isinstance(exc, click.NoSuchOption) and ctx is not None:
        near = nearest_option(exc.option_name, [word for param in ctx.command.params for word in param.opts])
    hint = f"did you mean {near}?" if near else f"{ctx.command_path} --help" if ctx is not None else ""
    return BadArgs(sentence(exc), hint=hint)


def _run(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    try:
        code: Any = cli.main(arguments, prog_name="srvctl", standalone_mode=False)
    except SrvdError as exc:
        return report(exc, as_json=as_json, verbose=not {"-v", "--verbose"}.isdisjoint(arguments))
    except click.ClickException as exc:
        return report(_misused(exc), as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        return report(Interrupted("interrupted"), as_json=as_json)
    except BrokenPipeError:
        # The reader of the pipe has left. The interpreter must not flush to it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT.FAILED
    except Exception:
        put(traceback.format_exc(), err=True)
        put("error: this is a bug in srvctl; please report it with the lines above", err=True)
        return EXIT.BUG
    return code if isinstance(code, int) else EXIT.DONE
