"""What `srvd` writes to standard error: errors with their hints, warnings, lines of applications.

Decides nothing. For the journal each line has its priority.
"""

from __future__ import annotations

import os

import click

from srvd.errors import SrvdError
from srvd.excerpt import excerpt
from srvd.log import escape, priorities

__all__ = ["complain", "say_line", "say_warning"]


def say_warning(text: str) -> None:
    """Writes a warning to standard error."""
    _say("warning", f"{_marked('warning', 'yellow')}: {_printable(text)}")


def _say(level: str, text: str) -> None:
    """Writes to standard error, with the level for the journal, which marks a failed start by it."""
    head = priorities(2, os.environ.get("JOURNAL_STREAM", "")).get(level, "")
    click.echo("\n".join(head + line for line in text.split("\n")), err=True)


def say_line(source: str, line: str) -> None:
    """Writes a line that a process printed, after the name of the process."""
    click.echo(f"{source} | {escape(line)}", err=True)


def complain(error: SrvdError, *, verbose: bool = True) -> None:
    """Writes the error, its traceback and its hint to standard error, in colour if that is a terminal."""
    _say("error", f"{_marked('error', 'red')}: {_printable(error.message)}")
    traceback = str(error.detail.get("traceback", "")).rstrip()
    if traceback:
        _say("error", _printable(traceback if verbose else excerpt(traceback)))
    if error.hint:
        _say("error", f"{_marked('hint', 'cyan')}: {_printable(error.hint)}")


def _marked(word: str, colour: str) -> str:
    return word if os.environ.get("NO_COLOR") else click.style(word, fg=colour)  # echo drops colour off a terminal


def _printable(text: str) -> str:
    """Escapes what steers a terminal, except line breaks: the text may come from a file or an application."""
    return "\n".join(escape(line) for line in text.split("\n"))
