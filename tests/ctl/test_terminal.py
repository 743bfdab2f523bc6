"""Claims about what a person sees: colours, tables, live progress – on a terminal only."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from srvd.ctl import render
from srvd.ctl.follow import BAR, Follower, _line
from tests.ctl.test_commands import SRVCTL, Daemon, environment


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    running = Daemon(str(tmp_path_factory.mktemp("run") / "a.sock"))
    yield running
    running.close()


def on_terminal(daemon: Daemon, *arguments: str, **more: str) -> str:
    """What a terminal gets to see."""
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            [*SRVCTL, *arguments], env=environment(daemon.path, **more), stdin=theirs, stdout=theirs, stderr=theirs
        ) as running:
            os.close(theirs)
            seen = b"".join(iter(lambda: _read(ours), b""))
        assert running.returncode == 0
    finally:
        os.close(ours)
    return seen.decode()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError as exc:
        if exc.errno == errno.EIO:  # the last one who had it open has closed it
            return b""
        raise


def test_a_table_is_aligned_and_states_have_colours(daemon: Daemon) -> None:
    seen = on_terminal(daemon, "status")
    assert "\x1b[32mready\x1b[0m" in seen
    assert "\t" not in seen
    head, row = (line for line in seen.split("\r\n") if line.startswith(("\x1b[1mPOOL", "web ")))
    assert head.replace("\x1b[1m", "").index("WORKERS") == row.replace("\x1b[32m", "").replace("\x1b[0m", "").index(
        "4  "
    )


@pytest.mark.parametrize("more", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_can_be_had_without(daemon: Daemon, more: dict[str, str]) -> None:
    assert "\x1b" not in on_terminal(daemon, "status", **more)


def test_progress_is_live_on_a_terminal_a_line_a_phase_and_a_bar_for_the_workers(daemon: Daemon) -> None:
    seen = on_terminal(daemon, "scale", "+2")
    assert "[................] 0/3" in seen.replace("........]", "]") or "0/3" in seen
    assert "\r\x1b[2K" in seen
    assert "2/3 worker web/4#1 is ready" in seen
    assert "scale web: \x1b[32mdone\x1b[0m" in seen


def test_each_step_ends_full_with_its_time_and_a_failed_one_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("srvd.ctl.follow.is_terminal", lambda stream: True)
    follower = Follower(quiet=False)
    told = [("load", 0, 1), ("canary", 0, 1), ("stage", 1, 4), ("commit", 2, 4), ("bake", 0, 0)]
    for phase, done, total in told:
        follower.show({"phase": phase, "done": done, "total": total, "message": "web/2#3 boots"})
    follower.end(done=True)
    left = [line.rpartition("\x1b[2K")[2] for line in capsys.readouterr().err.split("\n")[:-1]]
    full = "#" * BAR
    assert [line.split("]")[0] for line in left[:4]] == [f"  {phase:<10} [{full}" for phase, _, _ in told[:4]]
    assert all(re.search(r"\d m?s$", line) for line in left), left
    follower.show({"phase": "stage", "done": 1, "total": 4, "message": ""})
    follower.end(done=False)
    assert "] 1/4\n" in capsys.readouterr().err


def test_progress_is_quiet_with_json_and_where_no_terminal_is(daemon: Daemon) -> None:
    assert "worker web/4#1" not in on_terminal(daemon, "scale", "+2", "--json")
    assert daemon.ctl("scale", "+2").stderr == ""


def test_json_for_a_person_is_indented(daemon: Daemon) -> None:
    assert '{\r\n  "schema": 2,' in on_terminal(daemon, "ping", "--json")


def test_a_hostile_text_does_not_reach_the_terminal(daemon: Daemon) -> None:
    for line in ("why", "workers", "events"):
        seen = on_terminal(daemon, line)
        assert "\x07" not in seen
        assert "\x1b[2J" not in seen
        assert "\x1b[31m" not in seen
        assert "\\x1b" in seen


def test_a_line_of_progress_never_wraps() -> None:
    progress = {"phase": "boot", "done": 2, "total": 4, "message": "x" * 300 + "\x1b[2J"}
    assert len(_line(progress, 60)) == 59
    assert "[############............] 2/4" in _line(progress, 60)
    assert "[########################] 9/4" in _line({**progress, "done": 9}, 60)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ümlaut 漢字", "plain – ümlaut 漢字"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        ("a\nb\tc\r", "a\\nb\\tc\\x0d"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        (7, "7"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text: object, shown: str) -> None:
    assert render.escape(text) == shown


def test_line_breaks_may_stay_in_texts_of_many_lines() -> None:
    assert render.escape("a\n\tb\x1b\r\n", lines=True) == "a\n\tb\\x1b\\x0d\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 ms"),
        (0.0001, "1 ms"),
        (0.44, "440 ms"),
        (1.44, "1.4 s"),
        (12, "12 s"),
        (61, "1 min 1 s"),
        (3_600, "1 h"),
        (7_500, "2 h 5 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_lengths_of_time_have_two_units_at_most(value: float, shown: str) -> None:
    assert render.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0 B"), (1_023, "1023 B"), (21 << 20, "21.0 MiB"), (3 << 30, "3.0 GiB")]
)
def test_sizes_have_the_unit_that_fits(value: int, shown: str) -> None:
    assert render.size(value) == shown


def test_a_missing_home_or_language_is_no_matter(daemon: Daemon) -> None:
    bare = {name: value for name, value in environment(daemon.path).items() if name.startswith(("SRVD", "PYTHONPATH"))}
    done = subprocess.run([*SRVCTL, "why"], env={**bare, "LC_ALL": "C"}, capture_output=True, timeout=30)
    assert done.returncode == 0
