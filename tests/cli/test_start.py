"""Claims about `srvd start`'s command line: the quick reader and the full one agree, and the quick one is quick."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srvd.cli import app
from srvd.cli.fast import read_plain
from srvd.cli.flags import SHORT, Asked, flags

PLAIN: list[tuple[str, Asked]] = [
    ("start", Asked(None, {}, False)),
    ("start shop:app", Asked(None, {"APP": "shop:app"}, False)),
    ("start --workers 4 shop:app --daemonize", Asked(None, {"APP": "shop:app", "--workers": "4"}, True)),
    ("start --bind :1 --bind=unix:/a=b", Asked(None, {"--bind": (":1", "unix:/a=b")}, False)),
    ("start -c shop.toml", Asked("shop.toml", {}, False)),
    ("start --config=shop.toml --name n", Asked("shop.toml", {"--name": "n"}, False)),
    (
        "start -w 4 -b :1 -b :2 -n n a:b",
        Asked(None, {"APP": "a:b", "--workers": "4", "--bind": (":1", ":2"), "--name": "n"}, False),
    ),
    ("start --workers 4 --workers 5", Asked(None, {"--workers": "5"}, False)),
]

WORDS = [*flags(), *SHORT, "-w3", "-w=3", "-c", "--config", "--daemonize", "--help", "-h", "--", "-", "-x", "a:b", "7",
         ":1", "--workers=3", "--bind=:2", "--daemonize=1", "-cfile", "-c=f", "--name=", "--work",
         "--config=f"]  # fmt: skip


def read_fully(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Asked | None:
    """What the full command line would start; `None` when it refuses, or shows its help."""
    asked: list[Asked] = []

    def remember(one: Asked) -> int:
        asked.append(one)
        return 0

    monkeypatch.setattr(app, "start_daemon", remember)
    try:
        app.cli.main(arguments, prog_name="srvd", standalone_mode=False)
    except (click.ClickException, SystemExit):
        return asked[0] if asked else None
    return None


@pytest.mark.parametrize(("line", "asked"), PLAIN, ids=[line for line, _ in PLAIN])
def test_a_plain_start_is_read_without_click(line: str, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_plain(line.split()) == asked
    assert read_fully(line.split(), monkeypatch) == asked


@pytest.mark.parametrize(
    "line",
    [
        "", "--help", "check", "config x:y", "start --help", "start a:b c:d", "start --workers", "start --wrkers 3",
        "start -- a:b", "start --workers -3", "start -cfile", "start --daemonize=yes", "start APP APP",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_the_full_command_line(line: str) -> None:
    assert read_plain(line.split()) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=300)
@given(words=st.lists(st.sampled_from(WORDS), max_size=6))
def test_both_readers_of_the_command_line_agree(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    quick = read_plain(["start", *words])
    assert quick is None or quick == read_fully(["start", *words], monkeypatch)


def test_every_flag_reaches_its_setting_in_the_full_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [word for flag in flags() if flag != "APP" for word in (flag, "x")]
    asked = read_fully(["start", "a:b", *words], monkeypatch)
    expected: dict[str, Any] = dict.fromkeys(flags(), "x") | {"APP": "a:b", "--bind": ("x",)}
    assert asked == Asked(None, expected, False)


def test_a_plain_start_imports_neither_click_nor_what_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['srvd', 'start', 'a:b'];"
        "import srvd.daemon.entry.start as daemon; daemon.run = lambda *a, **k: print(*sorted(sys.modules)) or 0;"
        "from srvd.cli.fast import main; main()"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.split())
    unwanted = {
        "asyncio", "click", "dataclasses", "email", "http.client", "inspect", "json", "logging", "psutil", "shutil",
        "subprocess", "tempfile", "tomllib", "urllib",
    }  # fmt: skip
    assert loaded & unwanted == set()


def test_a_zygote_imports_little_before_the_application() -> None:
    code = "import sys; import srvd._zygote_entry; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    unwanted = {"asyncio", "ctypes", "dataclasses", "email", "inspect", "json", "logging", "subprocess", "tempfile"}
    assert set(done.stdout.split()) & unwanted == set()
