"""Runs one command: asks the daemon, prints the answer, and returns the exit code.

options.py has the arguments, views.py prints answers, srvd.errors has the errors.
"""

from __future__ import annotations

import os
from typing import Any

import click

from srvd.client.find import Named, find
from srvd.client.reconnecting import ReconnectingClient
from srvd.ctl.follow import Follower
from srvd.ctl.render import escape, instance, put, put_json
from srvd.ctl.views import VIEWS, show_event, show_operation
from srvd.errors import EXIT, NoDaemon, ShuttingDown, SrvdError
from srvd.excerpt import excerpt
from srvd.record import Record
from srvd.wire.codec import SCHEMA
from srvd.wire.commands import READY, Command, command

__all__ = ["Asked", "Interrupted", "report", "run"]

GONE_PATIENCE = 10.0
"""Seconds to wait for the end of the daemon's process after its last message."""

_ENDED = ("done", "failed", "rolled_back", "cancelled")


class Asked(Record):
    """One command with its arguments."""

    entry: Command
    args: dict[str, Any]  # of the wire
    named: Named
    as_json: bool
    patience: float = 0.0  # seconds to wait for the answer; 0: no limit
    follow: bool = False


class Interrupted(SrvdError):
    """Ctrl-C while a request waited."""

    code = "interrupted"
    exit_code = EXIT.INTERRUPTED


def run(asked: Asked) -> int:
    """Runs the command and returns the exit code. Raises `SrvdError`."""
    entry = asked.entry
    try:
        with ReconnectingClient(find(asked.named, os.environ, os.getuid())) as line:
            if entry.streams:
                return _stream(line, asked)
            if entry.name == "stop" and asked.args.get("wait", True):
                return _stop(line, asked)
            if entry.name == "op.show" and asked.follow:
                _follow(line, asked)
            result = _ask(line, asked)
    except NoDaemon as exc:
        if entry.name == "status":
            exc.detail["exit_code"] = EXIT.NOT_READY
        raise
    _show(asked, result)
    return _verdict(result) if entry.name == "status" else EXIT.DONE


def _ask(line: ReconnectingClient, asked: Asked) -> dict[str, Any]:
    follower, done = Follower(quiet=asked.as_json), False
    try:
        result = line.ask(asked.entry, asked.args, asked.patience, follower.show)
        done = True
        return result
    except KeyboardInterrupt:
        raise _interrupted(line, asked) from None
    finally:
        follower.end(done=done)


def _follow(line: ReconnectingClient, asked: Asked) -> None:
    """Waits until the operation has ended, with or without success."""
    try:
        _ask(line, asked._replace(entry=command("op.wait")))
    except SrvdError as exc:
        if exc.detail.get("state") not in _ENDED:
            raise


def _show(asked: Asked, result: dict[str, Any]) -> None:
    if asked.as_json:
        put_json(result)
    else:
        VIEWS.get(asked.entry.name, show_operation)(result)


def _interrupted(line: ReconnectingClient, asked: Asked) -> Interrupted:
    name, op = " ".join(asked.entry.words), line.operation
    if not op:
        return Interrupted(f"{name}: interrupted before the daemon answered")
    # A stop cannot be cancelled.
    end = "hurry it with `srvctl stop --now`" if name == "stop" else f"end it with `srvctl op cancel {op}`"
    return Interrupted(
        f"{name}: interrupted; operation {op} goes on",
        hint=f"follow it with `srvctl op wait {op}`; {end}",
        detail={"operation": op},
    )


def _stop(line: ReconnectingClient, asked: Asked) -> int:
    """Orders the stop, and waits until the daemon's process has ended, not only its answer."""
    line.client.watch_exit()
    result: dict[str, Any] = {"schema": SCHEMA}
    try:
        result = _ask(line, asked)
    except (ShuttingDown, NoDaemon) as exc:
        # The daemon may end before it has sent its answer: if its process has ended, the stop is done.
        gone = exc
        if not line.client.wait_gone(GONE_PATIENCE):
            raise gone from None
    else:
        if not line.client.wait_gone(GONE_PATIENCE):
            raise ShuttingDown(
                f"stop: the daemon has ended its work, but its process (pid {line.client.hello.pid}) is still there",
                hint="srvctl stop --now, or kill it",
            )
    if asked.as_json:
        put_json(result)
    else:
        put(f"{instance(line.client.hello.name)} (pid {line.client.hello.pid}) is gone")
    return EXIT.DONE


def _stream(line: ReconnectingClient, asked: Asked) -> int:
    since = asked.args.get("since", 0)
    number, earliest = (since, 0.0) if isinstance(since, int) else (0, since)
    events = line.watch(asked.args.get("topics", ()), number, follow=asked.follow)
    try:
        for event in events:
            if event["at"] < earliest:
                continue
            if asked.as_json:
                put_json({"schema": SCHEMA, **event}, compact=True)
            else:
                show_event(event)
    except KeyboardInterrupt:
        return EXIT.INTERRUPTED
    return EXIT.DONE


def _verdict(status: dict[str, Any]) -> int:
    whole = all(pool["state"] == READY for pool in status["pools"])
    return EXIT.DONE if whole and status["daemon"]["state"] not in ("starting", "stopping") else EXIT.NOT_READY


def exit_code(problem: SrvdError) -> int:
    """Returns the exit code of an error: that of its class, except for two.

    An error of the system in the daemon (a port in use) is a failed order for `srvctl`. An operation that gave up at
    its own --timeout has failed, too, while an expired --wait has not.
    """
    if problem.code == "system":
        return EXIT.FAILED
    if problem.code == "deadline" and problem.detail.get("state") in _ENDED:
        return EXIT.FAILED  # the operation's own limit: it gave up and restored the former state
    forced = problem.detail.get("exit_code")
    return forced if isinstance(forced, int) else problem.exit_code


def report(problem: SrvdError, *, as_json: bool, verbose: bool = False) -> int:
    """Prints an error on stderr, the application's traceback first (all of it if `verbose`). Returns the exit code."""
    if as_json:
        put_json({"schema": SCHEMA, "error": problem.to_wire()}, err=True)
        return exit_code(problem)
    traceback = problem.detail.get("traceback")
    if traceback:
        shown = str(traceback) if verbose else excerpt(str(traceback))
        put(escape(shown, lines=True).rstrip("\n"), err=True)
    step = problem.detail.get("step")
    first, *more = escape(problem.message, lines=True).split("\n")
    put(f"{click.style('error', fg='red')}: {first}" + (f" (step: {escape(step)})" if step else ""), err=True)
    for line in more:
        put(f"  {line}", err=True)  # indented: no line of a message looks like one of srvctl's own
    if problem.hint:
        put(f"{click.style('hint', fg='cyan')}: {escape(problem.hint)}", err=True)
    return exit_code(problem)
