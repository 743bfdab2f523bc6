"""The options and arguments of each command, made from its declaration in wire/commands.py.

Asks the daemon only to complete names of pools.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from srvd.client.connection import Client
from srvd.client.find import Named, find
from srvd.config.values import Unfit, read
from srvd.errors import SrvdError
from srvd.wire.commands import TOPICS, Command, Field

__all__ = ["JSON", "arguments", "options"]

JSON = "as_json"

_COMPLETION_PATIENCE = 0.5
"""Seconds that a completion waits for the daemon."""


if TYPE_CHECKING:
    ParamType = click.ParamType[float]
else:
    ParamType = click.ParamType  # generic only since click 8.4


class Duration(ParamType):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return float(read("duration", value))
        except Unfit as unfit:
            near = f"; did you mean {unfit.nearest}?" if unfit.nearest else ""
            self.fail(f"{value!r} is no duration such as 30s, 5m or 500ms{near}", param, ctx)


_CLOCKS = ("%H:%M", "%H:%M:%S", "%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S",
           "%Y-%m-%dT%H:%M:%S")  # fmt: skip


class Moment(ParamType):
    """A time in the past, as Unix seconds: 14:00, 2026-11-30, or 1h for an hour ago."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        now = time.time()
        for form in _CLOCKS:
            try:
                found = time.strptime(value, form)
            except ValueError:
                continue
            if "%d" in form:
                return time.mktime(found)
            day = time.localtime(now)
            at = time.mktime((*day[:3], *found[3:6], 0, 0, -1))
            return at if at <= now else time.mktime((*day[:2], day[2] - 1, *found[3:6], 0, 0, -1))  # yesterday's
        try:
            return now - float(read("duration", value))
        except Unfit:
            self.fail(f"{value!r} is no time such as 14:00, 2026-11-30 or 1h (ago)", param, ctx)


class EventsSince(Moment):
    """The number of an event, or a moment."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return int(value)
        except ValueError:
            return super().convert(value, param, ctx)


def complete_pool(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Completes names of pools; returns none when no daemon answers, since a completion cannot show errors."""
    top = ctx.find_root().params
    try:
        path = find(Named(top.get("socket") or "", top.get("name") or ""), os.environ, os.getuid())
        with Client.connect(path, _COMPLETION_PATIENCE) as client:
            pools = client.call("status")["pools"]
    except SrvdError:
        return []
    return [name for pool in pools if (name := str(pool["name"])).startswith(incomplete)]


def options(entry: Command) -> list[click.Parameter]:
    """Returns the parameters of the command."""
    names = {field.name for field in entry.fields}
    made: list[click.Parameter] = []
    if entry.name == "scale":
        made.append(click.Argument(["size"], required=False, metavar="[SIZE]"))
    if {"pool", "worker"} <= names:
        made.append(click.Argument(["target"], required=False, metavar="[TARGET]", shell_complete=complete_pool))
    elif "pool" in names:
        made.append(click.Argument(["pool"], required=False, shell_complete=complete_pool))
    for field in entry.fields:
        if field.name not in ("pool", "worker", "size", "delta"):
            made += _of_field(field)
    if entry.changes or entry.name == "op.wait":
        about = "Show all of a traceback, not only the application's own lines"
        made.append(click.Option(["--verbose", "-v"], is_flag=True, help=about))
    if entry.streams:
        follow = "Go on with new events, until interrupted"
        made.append(click.Option(["--follow", "-f", "follow"], is_flag=True, help=follow))
    if entry.name == "op.show":
        made.append(
            click.Option(["--follow", "-f", "follow"], is_flag=True, help="Wait until it has ended, then show it")
        )
    made.append(click.Option(["--json", JSON], is_flag=True, help="Print the daemon's answer as JSON"))
    return made


def _of_field(field: Field) -> list[click.Parameter]:
    flag = f"--{field.name}"
    match field.kind:
        case _ if field.name == "id":
            return [click.Argument(["id"], type=click.IntRange(int(field.least)))]
        case _ if field.name == "wait":
            patience = "Wait at most this long, then exit with 124; the operation goes on"
            return [
                click.Option(["--wait", "patience"], type=Duration(), metavar="TIME", help=patience),
                click.Option(["--no-wait", "no_wait"], is_flag=True, help="Return as soon as the operation has begun"),
            ]
        case "generation":
            return [click.Option([flag, field.name], metavar="GENERATION", help=field.help)]
        case "flag":
            return [click.Option([flag, field.name], is_flag=True, help=field.help)]
        case "moment":
            return [click.Option([flag, field.name], type=Moment(), metavar="TIME", help=field.help)]
        case "seconds":
            return [click.Option([flag, field.name], type=Duration(), metavar="TIME", help=field.help)]
        case "topics":
            choice = click.Choice(TOPICS)
            return [
                click.Option(["--topic", field.name], multiple=True, type=choice, help="Only this topic; repeatable")
            ]
        case _ if field.name == "since":
            about = f"{field.help}; or a time: 14:00, 2026-11-30, 1h (ago)"
            return [click.Option([flag, field.name], type=EventsSince(), metavar="NUMBER|TIME", help=about)]
        case _:
            kind = click.IntRange(int(field.least), int(field.most))
            return [
                click.Option([flag, field.name], type=kind, default=field.default, show_default=True, help=field.help)
            ]


def arguments(entry: Command, ctx: click.Context) -> dict[str, Any]:
    """Returns the arguments to send, without those that were not given. Raises `click.UsageError`."""
    args: dict[str, Any] = {}
    given = ctx.params
    for field in entry.fields:
        value = given.get(field.name)
        if value is not None and value != field.default and value != ():
            args[field.name] = list(value) if isinstance(value, tuple) else value
    if entry.name == "scale":
        args |= _scale(ctx, args.pop("size", None), args.pop("pool", None))
    target = given.get("target")
    if target:
        args["worker" if "/" in target or "@" in target or target.isdecimal() else "pool"] = target
    if given.get("no_wait"):
        if given.get("patience"):
            ctx.fail("--wait and --no-wait exclude each other")
        args["wait"] = False
    return args


def _scale(ctx: click.Context, size: str | None, pool: str | None) -> dict[str, Any]:
    """Reads SIZE, a number or a signed difference. With --reset there is none, and the first word is the pool."""
    said: dict[str, Any] = {}
    if ctx.params["reset"]:
        if pool:
            ctx.fail("--reset takes no SIZE")
        pool = size
    elif size is None:
        ctx.fail("a SIZE is needed (8, +2 or -2), or --reset")
    elif not size.lstrip("+-").isdecimal() or len(size) > 6 or size[1:2] in ("+", "-"):
        ctx.fail(f"{size!r} is no SIZE; write 8, +2 or -2, and the pool behind it")
    elif size[0] in "+-":
        said["delta"] = int(size)
    else:
        said["size"] = int(size)
    return {**said, **({"pool": pool} if pool else {})}
