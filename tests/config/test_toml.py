"""Claims about `srvd.config.toml`: on which line a key stands, and what is said of a file that is no TOML."""

from __future__ import annotations

import os
import string
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srvd.config.toml import LIMIT, find_lines, read_document
from srvd.config.values import show
from srvd.errors import ConfigInvalid

SAMPLE = '''\
# a comment with [brackets] = "and keys"
title = "not # a comment"   # [pools.ghost]

[daemon]
name = 'single "quoted"'
a.b . "c.d" = 1
[control]
roles = { operator = ["deploy"], viewer = [
  "%monitoring", # { x = 1 }
] }

[ pools . "web" ]
text = """
workers = 1
[pools.ghost]
quotes: "" \\""" ""and five:"""""
literal = \'\'\'
ghost = 2 \'\' \'\'\'
workers = 0xf_f # }
when = 1979-05-27 07:32:00Z
list = [ { ghost = 1 }, [1, 2, "]"], \'\'\'
]\'\'\' ]
nested = { one = { two = 2 }, three.four = 3 }
"caf\\u00e9" = true
[pools."jobs \\" x"]
empty = {}
none = []
last = 1.5e3'''


def test_every_key_stands_on_its_line() -> None:
    tomllib.loads(SAMPLE)
    assert find_lines(SAMPLE) == {
        ("title",): 2,
        ("daemon",): 4,
        ("daemon", "name"): 5,
        ("daemon", "a"): 6,
        ("daemon", "a", "b"): 6,
        ("daemon", "a", "b", "c.d"): 6,
        ("control",): 7,
        ("control", "roles"): 8,
        ("control", "roles", "operator"): 8,
        ("control", "roles", "viewer"): 8,
        ("pools",): 12,
        ("pools", "web"): 12,
        ("pools", "web", "text"): 13,
        ("pools", "web", "literal"): 17,
        ("pools", "web", "workers"): 19,
        ("pools", "web", "when"): 20,
        ("pools", "web", "list"): 21,
        ("pools", "web", "nested"): 23,
        ("pools", "web", "nested", "one"): 23,
        ("pools", "web", "nested", "one", "two"): 23,
        ("pools", "web", "nested", "three"): 23,
        ("pools", "web", "nested", "three", "four"): 23,
        ("pools", "web", "café"): 24,
        ("pools", 'jobs " x'): 25,
        ("pools", 'jobs " x', "empty"): 26,
        ("pools", 'jobs " x', "none"): 27,
        ("pools", 'jobs " x', "last"): 28,
    }


def test_windows_line_ends_count_once() -> None:
    assert find_lines("a = 1\r\n\r\n[b]\r\nc = 2\r\n") == {("a",): 1, ("b",): 3, ("b", "c"): 4}


def test_arrays_of_tables_keep_their_first_line() -> None:
    assert find_lines("[[a]]\nb = 1\n[[a]]\nb = 2\n") == {("a",): 1, ("a", "b"): 2}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "[a]", "a={}", "a=[]"])
def test_the_smallest_texts_are_scanned(text: str) -> None:
    tomllib.loads(text)
    assert len(find_lines(text)) <= 1


KEYS = st.text(string.ascii_letters + "-_.\"'#[]{}= é\\", min_size=1, max_size=4)
LEAVES = st.one_of(st.integers(), st.booleans(), st.text("ab\"'#[]{}=,\\\n", max_size=6))
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)), max_leaves=6
)


def spelled(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[\n" + ",".join(spelled(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{show('path', key)}={spelled(item)}" for key, item in value.items()) + "}"
    return show("path", value)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_any_text_that_tomllib_takes_is_scanned_to_its_keys(tables: dict[str, dict[str, Any]]) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for title, table in tables.items():
        lines.append(f"[{show('path', title)}]")
        expected[title,] = len(lines)
        for name, value in table.items():
            expected[title, name] = len(lines) + 1
            lines += f"{show('path', name)} = {spelled(value)} # ]}}".split("\n")
    text = "\n".join(lines)
    assert tomllib.loads(text) == tables
    found = find_lines(text)
    assert {key: line for key, line in found.items() if len(key) <= 2} == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (b"[daemon]\nname = \n", "srvd.toml:2: not valid TOML: Invalid value; nothing was changed"),
        (b"a = 1\na = 2\n", "srvd.toml:2: not valid TOML: Cannot overwrite a value; nothing was changed"),
        (b"\n\nname = '\xff'\n", "srvd.toml:3: this is not UTF-8 (invalid start byte); nothing was changed"),
        (b"#" * (LIMIT + 1), f"srvd.toml: it is longer than {LIMIT} bytes; nothing was changed"),
        (b"a=" + b"[" * 50_000, "srvd.toml: it is nested too deeply; nothing was changed"),
    ],
    ids=["syntax", "duplicate", "encoding", "length", "depth"],
)  # fmt: skip
def test_a_file_that_is_no_toml_is_refused_with_its_line(tmp_path: Path, source: bytes, expected: str) -> None:
    path = tmp_path / "srvd.toml"
    path.write_bytes(source)
    with pytest.raises(ConfigInvalid) as caught:
        read_document(str(path))
    assert caught.value.message.endswith(expected)
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("source", ["app = shop.wsgi:application\n", "[pools.web]\nrequest_timeout = 30s\n"])
def test_a_value_without_its_quotes_is_told_what_is_written_in_quotes(tmp_path: Path, source: str) -> None:
    path = tmp_path / "srvd.toml"
    path.write_text(source)
    with pytest.raises(ConfigInvalid) as caught:
        read_document(str(path))
    assert caught.value.hint == 'text, paths and times are written in quotes, as in app = "shop.wsgi:application"'


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"none\.toml: No such file or directory; nothing was changed"):
        read_document(str(tmp_path / "none.toml"))
    with pytest.raises(ConfigInvalid, match="Is a directory"):
        read_document(str(tmp_path))


def test_a_pipe_is_read_once_and_never_waited_for_again(tmp_path: Path) -> None:
    path = tmp_path / "srvd.toml"
    os.mkfifo(path)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(read_document, str(path))
        path.write_text("[daemon]\n")
        assert first.result(10).values == {"daemon": {}}
    with pytest.raises(ConfigInvalid, match=r"srvd\.toml: it is no file and cannot be read again; nothing was changed"):
        read_document(str(path), again=True)
    with pytest.raises(ConfigInvalid, match="it is no file"):
        read_document("/dev/null", again=True)


def test_a_key_without_a_line_is_found_at_its_table(tmp_path: Path) -> None:
    path = tmp_path / "srvd.toml"
    path.write_text("\n[pools]\nweb = { list = [ { x = 1 } ] }\n")
    document = read_document(str(path))
    assert document.where(("pools", "web", "list", "x")) == f"{path}:3"
    assert document.where(("nothing",)) == str(path)
