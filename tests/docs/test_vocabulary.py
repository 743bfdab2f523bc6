"""Claims about words: sentences name their subject, and a name in the source stands for one idea."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "srvd"

VAGUE = re.compile(r"(?<![`-])\b(?:who|whoever|whom|somebody|nobody|anybody)\b(?!`)", re.IGNORECASE)
"""Words behind which the reader has to look for the process, the user or the program that is meant. In backticks,
`nobody` is a user, and after a hyphen (`--kill-whom`) it is a part of an option."""

WORD = re.compile(r"[A-Za-z][A-Za-z'’]*")
PER_THOUSAND = 1.0


def folder_of(path: Path) -> str:
    return str(path.parent.relative_to(ROOT))


def sentences(path: Path) -> Iterator[str]:
    """What a file says to people: a page as a whole; of a module its comments, docstrings and messages."""
    text = path.read_text()
    if path.suffix != ".py":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def texts() -> list[Path]:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "docs" / "generate.py"]
    examples = [path for path in (ROOT / "contrib").rglob("*") if path.is_file()]
    return sorted([*SOURCE.rglob("*.py"), *pages, *examples])


def test_folders_seldom_use_words_that_hide_the_subject() -> None:
    words: defaultdict[str, int] = defaultdict(int)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for path in texts():
        for text in sentences(path):
            words[folder_of(path)] += len(WORD.findall(text))
            found[folder_of(path)] += [f"{path.relative_to(ROOT)}: {line.strip()}" for line in text.splitlines()
                                       for _ in VAGUE.findall(line)]  # fmt: skip
    assert len(words) > 20
    # A small folder may have one such word, as a folder of a thousand words may.
    most = {folder: max(1.0, PER_THOUSAND * count / 1000) for folder, count in words.items()}
    assert {folder: lines for folder, lines in found.items() if len(lines) > most[folder]} == {}


def test_a_sentence_with_a_vague_word_is_found() -> None:
    assert VAGUE.findall("Whoever asks waits for nobody, and who asks `nobody`?") == ["Whoever", "nobody", "who"]
    assert VAGUE.findall("systemctl kill --kill-whom=main; run as `nobody`; the whole") == []


# -- names ----------------------------------------------------------------------------------------------------------

HOMES = {
    "engine": "config",  # what runs the calls of a pool: threads or gevent
    "certificate": "config tls http",  # of TLS; a death leaves a record
    "claim": "linux",
    "lane": "linux worker",  # the part of a scoreboard that one thread writes
    "phase": "core worker",  # of a worker's life; of a connection's
    "resume": "core",  # the order
    "ring": "worker",  # the bell that wakes the daemon
    "subscribers": "daemon",
    "trial": "core daemon",  # a generation that has not committed
}
"""Names that have stood for several ideas, and the parts of src/srvd that may give one to a class, a function, or an
attribute of theirs."""

NOWHERE = (
    "bond", "breaker", "carried", "carry", "condemned", "crowd", "desk", "dissolve", "door", "estate", "gate",
    "hall", "herald", "here", "heritage", "house", "keepsake", "kept", "latecomers", "mender", "newborn", "nursery",
    "outbox", "seats", "seldom", "silence", "voice", "wear", "weight", "will", "wish", "witness", "woke",
    "worn",
)  # fmt: skip
"""Names that were given up for the field's own: saved and restored, acceptor, slots, send queue, desired."""


def names_of(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives to classes, functions and attributes, and to its own variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        if isinstance(node, ast.Module | ast.ClassDef):
            for part in node.body:
                targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def parts_by_name() -> dict[str, set[str]]:
    """The parts of src/srvd that give a name, by the name in small letters without its leading underscore."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        for name in names_of(ast.parse(path.read_text())):
            found[name.strip("_").lower()].add(path.relative_to(SOURCE).parts[0])
    return found


def test_a_name_is_given_only_where_it_stands_for_its_one_idea() -> None:
    found = parts_by_name()
    homes = {name: set(parts.split()) for name, parts in HOMES.items()} | {name: set() for name in NOWHERE}
    strays = {name: found[name] - parts for name, parts in homes.items() if name in found}
    assert {name: parts for name, parts in strays.items() if parts} == {}
    assert found["lane"] == {"linux", "worker"}, "names are found"
