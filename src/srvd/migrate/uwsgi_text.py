"""Reads a configuration or a start line of uWSGI: its options in order, with the values that stand for others put in.

Translates no option: `uwsgi.py` does. Executes nothing and expands no variable: `$(NAME)` becomes `${NAME}`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from srvd.errors import ConfigInvalid
from srvd.migrate.report import Finding
from srvd.record import Record

__all__ = ["Given", "Option", "of_file", "of_flags"]

_LOGIC: Final = re.compile(r"(if|for|end|else|call)(-[a-z0-9-]+|if|for|opt)?")
_SHORT: Final[Mapping[str, str]] = {
    "-s": "socket", "-p": "processes", "-w": "module", "-H": "home", "-d": "daemonize", "-C": "chmod-socket",
    "-l": "listen", "-b": "buffer-size", "-t": "harakiri", "-R": "max-requests", "-z": "socket-timeout",
    "-M": "master", "-T": "enable-threads", "-L": "disable-logging", "-m": "memory-report", "-i": "single-interpreter",
}  # fmt: skip
_SWITCHES: Final = frozenset({
    "auto-procname", "close-on-exec", "close-on-exec2", "die-on-term", "disable-logging", "disable-write-exception",
    "enable-threads", "exit-on-reload", "harakiri-verbose", "ignore-sigpipe", "ignore-write-errors", "lazy",
    "lazy-apps", "log-4xx", "log-5xx", "log-date", "log-master", "log-x-forwarded-for", "manage-script-name", "master",
    "memory-report", "need-app", "no-default-app", "no-orphans", "single-interpreter", "strict", "thunder-lock",
    "vacuum", "wsgi-disable-file-wrapper",
})  # fmt: skip
"""Options that take no value on a command line."""

_MOST: Final = 20  # values that stand for others, one in another


class Option(Record):
    """One option. line: where it stands in the file; 0: on the command line."""

    name: str
    text: str
    line: int = 0


class Given(Record):
    """options: in their order. used: names that only stand for values in others. ini: files that a line names."""

    options: tuple[Option, ...]
    findings: tuple[Finding, ...] = ()
    used: frozenset[str] = frozenset()
    ini: tuple[str, ...] = ()


def of_file(path: str, whole: str, text: str, wanted: str = "uwsgi") -> Given:
    """Returns the options of a file in the format of INI. Raises `ConfigInvalid` if it has no section of that name.

    path: as the report calls it. whole: the absolute path, for what stands for parts of it. wanted: the section.
    """
    found = list(_in_section(text, wanted))
    if not re.search(rf"^\s*\[{re.escape(wanted)}\]", text, re.MULTILINE):
        raise ConfigInvalid(f"read {path}: it has no section [{wanted}]; nothing was written")
    kept, findings, depth = [], [], 0
    for option in found:
        if _LOGIC.fullmatch(option.name):
            begins = option.name.startswith(("if", "for"))
            if begins and not depth:
                about = f"{option.name} = {option.text}: what depends on it is not carried over"
                findings.append(Finding("asked for", f"{path}:{option.line}", about))
            depth = max(0, depth + (1 if begins else -1 if option.name.startswith("end") else 0))
        elif not depth:
            kept.append(option)
    parts = _parts_of(whole)
    used: set[str] = set()
    known = {option.name: option.text for option in reversed(kept)}
    resolved = [option._replace(text=_resolved(option.text, known, parts, used)) for option in kept]
    return Given(tuple(resolved), tuple(findings), frozenset(used))


def of_flags(words: Sequence[str]) -> Given:
    """Returns the options of a start line. Raises `ConfigInvalid` for a flag without its value."""
    options, files = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            if word.endswith(".ini"):
                files.append(word)
            continue
        name, equals, text = word.partition("=")
        if not name.startswith("--"):
            name, text, equals = name[:2], word[2:].removeprefix("="), word[2:]
        name = _SHORT.get(name, "") if not name.startswith("--") else name.removeprefix("--")
        if not name:
            raise ConfigInvalid(f"read the flag {word}: it is not known of uwsgi; nothing was written")
        if name in _SWITCHES or (not equals and rest and rest[0].startswith("-")):
            text = text or "true"
        elif not equals and not rest:
            raise ConfigInvalid(f"read the flag --{name}: it has no value; nothing was written")
        elif not equals:
            text = rest.pop(0)
        if name == "ini":
            files.append(text)
        else:
            options.append(Option(name, text))
    return Given(tuple(options), ini=tuple(files))


def _in_section(text: str, wanted: str) -> Iterator[Option]:
    section = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            section = line[1:-1]
        elif section == wanted:
            name, _, value = line.partition("=")
            yield Option(name.strip(), value.strip(), number)


def _parts_of(whole: str) -> dict[str, str]:
    """What the magic variables that name a configuration file stand for."""
    folder, _, name = whole.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    return {
        "%d": f"{folder}/", "%p": whole, "%o": name, "%s": name, "%n": stem if dot else name, "%e": extension,
        "%c": folder.rpartition("/")[2], "%x": "uwsgi", "%v": folder,
    }  # fmt: skip


def _resolved(text: str, known: Mapping[str, str], parts: Mapping[str, str], used: set[str]) -> str:
    for _ in range(_MOST):
        names = [name for name in _names_in(text) if name in known]
        if not names:
            break
        used.update(names)
        for name in names:
            text = text.replace(f"%({name})", known[name])
    text = re.sub("%[a-zA-Z]", lambda match: parts.get(match[0], match[0]), text)
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", r"${\1}", text)


def _names_in(text: str) -> Iterable[str]:
    return dict.fromkeys(re.findall(r"%\(([A-Za-z0-9_-]+)\)", text))
