"""What `srvd` and `srvctl` share on the command line: messages about wrong words, and `help TOPIC`.

Knows no command of either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import click

from srvd.nearest import nearest

__all__ = ["nearest_option", "sentence", "show_topic", "unknown_command"]


def sentence(exc: click.ClickException) -> str:
    """Returns click's message in the form of srvd's: begins with a small letter, has no full stop, names no type."""
    text = f"there is no option {exc.option_name}" if isinstance(exc, click.NoSuchOption) else exc.format_message()
    text = re.sub(r" is not a valid (integer range|integer)\b", " is no whole number", text)
    return text[:1].lower() + text[1:].rstrip(".")


def unknown_command(word: str, known: Iterable[str], foreign: Mapping[str, str]) -> str:
    """Returns the message about `word`, which is no command.

    Ends with what `foreign` says about a command of another program, or else with the nearest name in `known`.
    """
    near = nearest(word, known)
    meant = foreign.get(word, "") or (f"did you mean {near}?" if near else "")
    return f"there is no command {word!r}" + (f"; {meant}" if meant else "")


def nearest_option(option: str, known: Iterable[str]) -> str:
    """Returns the option in `known` of which `option` is a misspelling; "" if there is none.

    click would offer any option that shares half of its letters: --threads for --reload.
    """
    word = option.lstrip("-")
    for other in known:
        bare = other.lstrip("-")
        if (len(word) > 3 and bare.startswith(word)) or (len(word) > 2 and _is_slip(word, bare)):
            return other
    return ""


def _is_slip(one: str, two: str) -> bool:
    """Whether one letter is missing, added or wrong, or two neighbours are swapped."""
    if len(one) > len(two):
        one, two = two, one
    at = next((i for i, letter in enumerate(one) if letter != two[i]), len(one))
    if len(one) < len(two):
        return one[at:] == two[at + 1 :]
    swapped = one[:at] + one[at + 1 : at + 2] + one[at : at + 1] + one[at + 2 :]
    return one[at + 1 :] == two[at + 1 :] or swapped == two


def show_topic(ctx: click.Context, group: click.Group, words: Sequence[str], other: tuple[str, Iterable[str]]) -> None:
    """Prints the help of a command of this program, a setting or a page of the manual; without `words`, lists them.

    other: the other program and its commands. Raises `click.UsageError`: there is no such topic.
    """
    from srvd.manual import explain, pages, settings  # here, because it imports all settings

    root = ctx.find_root()
    topic = " ".join(words)
    if not topic:
        click.echo(group.get_help(root))
        click.echo(f"\nPages of the manual, for `{root.info_name} help PAGE`:\n  {', '.join(pages())}")
        click.echo(f"A setting is explained by its name: `{root.info_name} help request_timeout`.")
        return
    command = _find_command(ctx, group, words)
    if command is not None:
        click.echo(command.get_help(click.Context(command, info_name=topic, parent=root)))
        return
    text = explain(topic)
    if not text:
        program, commands = other
        foreign = {one: f"that is a command of {program}: `{program} help {one}`" for one in commands}
        near = nearest(topic, [*group.list_commands(ctx), *settings(), *pages()])
        said = foreign.get(topic) or (f"did you mean {near}?" if near else f"`{root.info_name} help` lists the pages")
        raise click.UsageError(f"there is no command, setting or page {topic!r}; {said}")
    click.echo_via_pager(text.rstrip("\n") + "\n")


def _find_command(ctx: click.Context, group: click.Group, words: Sequence[str]) -> click.Command | None:
    """Returns the command of these words, such as ("op", "list"); None if there is none."""
    found: click.Command | None = group
    for word in words:
        found = found.get_command(ctx, word) if isinstance(found, click.Group) else None
    return found
