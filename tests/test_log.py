"""Claims about `srvd.log`: what a line looks like, and that no descriptor can stop its writer."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from srvd.log import Log, escape

NOON = 1_795_411_561_123_999_999


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    path = tmp_path / "log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield fd, path
    os.close(fd)


def text_log(fd: int, level: str = "info") -> Log:
    return Log(fd, "text", level, environ={}, clock=lambda: NOON)


def json_log(fd: int) -> Log:
    return Log(fd, "json", "info", environ={}, clock=lambda: NOON)


def journal_log(fd: int, of: int, kind: str = "text") -> Log:
    """With the environment of a service whose stderr was the descriptor `of`."""
    entry = os.fstat(of)
    environ = {"JOURNAL_STREAM": f"{entry.st_dev}:{entry.st_ino}"}
    return Log(fd, kind, "debug", environ=environ, clock=lambda: NOON)


def test_the_journal_is_told_the_priority_of_each_line(pipe: tuple[int, int]) -> None:
    log = journal_log(pipe[1], pipe[1])
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("failed\nTraceback\n")
    log.captured("web/1#1", "<0>of an application")
    lines = os.read(pipe[0], 4096).decode().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<3>", "<6>"]
    assert lines[4:] == ["<3>    Traceback", "<6>web/1#1 | <0>of an application"]


def test_what_a_worker_logs_keeps_its_priority(pipe: tuple[int, int]) -> None:
    log = journal_log(pipe[1], pipe[1])
    for level, priority in (("debug", 7), ("info", 6), ("warning", 4), ("error", 3)):
        text_log(pipe[1], "debug").write(level, "told by a worker")
        own = os.read(pipe[0], 4096).decode().rstrip()
        log.captured("web/1#1", own)
        assert os.read(pipe[0], 4096).decode() == f"<{priority}>web/1#1 | {own}\n"


def test_json_for_the_journal_is_json_behind_its_priority(pipe: tuple[int, int]) -> None:
    journal_log(pipe[1], pipe[1], "json").warning("c")
    line = os.read(pipe[0], 4096).decode()
    assert line.startswith("<4>{")
    assert json.loads(line[3:])["text"] == "c"


def test_whoever_is_not_the_journal_is_told_no_priorities(pipe: tuple[int, int], file: tuple[int, Path]) -> None:
    """The variable is inherited by whatever a service starts, and log_file is no journal."""
    journal_log(pipe[1], file[0]).warning("c")
    assert os.read(pipe[0], 4096).startswith(b"20")


def test_what_was_the_journal_may_become_a_file(pipe: tuple[int, int], file: tuple[int, Path]) -> None:
    own = os.dup(pipe[1])
    log = journal_log(own, own)
    os.dup2(file[0], own)
    log.renew()
    log.warning("c")
    assert file[1].read_text().startswith("20")
    os.close(own)


def fill(fd: int) -> None:
    """Writes until the kernel takes no more; leaves the descriptor blocking, as a logger finds it."""
    os.set_blocking(fd, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(fd, b"x" * size)
        except BlockingIOError:
            continue
    os.set_blocking(fd, True)


def drain(fd: int) -> None:
    os.set_blocking(fd, False)
    try:
        while os.read(fd, 65_536):
            continue
    except BlockingIOError:
        os.set_blocking(fd, True)


def test_a_line_has_the_time_the_level_and_the_sentence(
    file: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fd, path = file
    text_log(fd).info("worker web/3#17 ready after 0.8 s")
    stamp, rest = path.read_text()[:23], path.read_text()[23:]
    assert stamp[4] == stamp[7] == "-"
    assert stamp.endswith(".123")
    assert rest == " INFO  worker web/3#17 ready after 0.8 s\n"


def test_levels_below_the_least_are_not_written(file: tuple[int, Path]) -> None:
    fd, path = file
    log = text_log(fd, "warning")
    log.debug("one")
    log.info("two")
    log.warning("three")
    log.error("four")
    assert [line.split()[2:] for line in path.read_text().splitlines()] == [["WARN", "three"], ["ERROR", "four"]]


def test_json_carries_the_fields_and_utc(file: tuple[int, Path]) -> None:
    fd, path = file
    json_log(fd).info(
        'said "no"\n\x1b[31m', (("worker", "web/3#17"), ("seconds", 0.8), ("pid", 7), ("odd", float("nan")))
    )
    assert json.loads(path.read_text()) == {
        "time": "2026-11-23T05:26:01.123Z", "level": "info", "worker": "web/3#17", "seconds": 0.8, "pid": 7,
        "odd": None, "text": 'said "no"\n\x1b[31m',
    }  # fmt: skip
    assert path.read_text().count("\n") == 1
    assert "\x1b" not in path.read_text()


def test_control_characters_cannot_reach_a_terminal(file: tuple[int, Path]) -> None:
    fd, path = file
    text_log(fd).info("a\x1b[2Jb\x9bc\x00d\re\x7ff\u202eg\tö")
    assert path.read_text().endswith("a\\x1b[2Jb\\x9bc\\x00d\\re\\x7ff\\u202eg\\tö\n")


def test_a_traceback_follows_indented_so_that_no_line_of_it_looks_like_a_line_of_the_log(
    file: tuple[int, Path],
) -> None:
    fd, path = file
    text_log(fd).error("load web@2: boom\nTraceback:\n  File x\n2026-11-23 05:26:01.123 INFO  all is well\n")
    first, *further = path.read_text().splitlines()
    assert first.endswith("ERROR load web@2: boom")
    assert further == ["    Traceback:", "      File x", "    2026-11-23 05:26:01.123 INFO  all is well"]


def test_lone_surrogates_are_written_escaped(file: tuple[int, Path]) -> None:
    fd, path = file
    text_log(fd).info(os.fsdecode(b"caf\xe9"))
    json_log(fd).info(os.fsdecode(b"caf\xe9"))
    first, second = path.read_text().splitlines()
    assert first.endswith("caf\\udce9")
    assert json.loads(second)["text"] == "caf\udce9"


def test_a_captured_object_of_json_stays_one_and_gets_its_source(file: tuple[int, Path]) -> None:
    fd, path = file
    lines = ['{"level": "warn", "n": 1}', "{ }", '{"source": "shop"}', '{"a": 1} x', "[1]", '{"a": "\x1b"}',
             '{"a":' * 9999, '{"long": "' + "x" * 9000 + '"}']  # fmt: skip
    for line in lines:
        json_log(fd).captured("web/3#17", line)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[:3] == [
        {"source": "web/3#17", "level": "warn", "n": 1},
        {"source": "web/3#17"},
        {"srvd.source": "web/3#17", "source": "shop"},
    ]
    assert [(one["source"], one["text"][:4]) for one in found[3:]] == [("web/3#17", line[:4]) for line in lines[3:]]


@pytest.mark.parametrize("kind", ["text", "json"])
def test_a_raw_log_leaves_captured_lines_as_they_are_but_not_those_of_a_worker_itself(
    file: tuple[int, Path], kind: str
) -> None:
    fd, path = file
    log = Log(fd, kind, environ={"JOURNAL_STREAM": "1:1"}, clock=lambda: NOON, raw=True)
    log.captured("web/3#17", '{"a": "\x1b[1m"}')
    log.captured("web/3#17", "x" * 8192)
    log.captured("web/3#17", "2026-01-02 15:04:05.000 WARN  of the worker")
    log.info("of the daemon")
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"a": "\x1b[1m"}', "x" * 8192]
    assert ("web/3#17" in lines[2], "of the worker" in lines[2]) == (True, True)
    assert "of the daemon" in lines[3]


def test_a_captured_line_is_prefixed_with_the_worker(file: tuple[int, Path]) -> None:
    fd, path = file
    text_log(fd, "error").captured("web/3#17", "hello\x07")
    json_log(fd).captured("web/3#17", "hello")
    first, second = path.read_text().splitlines()
    assert first == "web/3#17 | hello\\x07"
    assert json.loads(second)["source"] == "web/3#17"


@pytest.mark.parametrize("text", ["x" * 100_000, "ö" * 50_000, "\x01" * 50_000], ids=["ascii", "utf-8", "escapes"])
def test_a_line_is_at_most_8_kib(file: tuple[int, Path], text: str) -> None:
    fd, path = file
    text_log(fd).info(text)
    json_log(fd).info(text, (("stderr", text),))
    json_log(fd).info(text)
    lines = path.read_bytes().splitlines(keepends=True)
    assert [len(line) <= 8192 for line in lines] == [True] * 3
    assert [len(line) > 4000 for line in lines] == [True] * 3
    assert all(json.loads(line)["text"].endswith("...") for line in lines[1:])
    lines[0].decode()


def test_a_full_pipe_costs_lines_and_never_blocks(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log = text_log(writer)
    fill(writer)
    for _ in range(3):
        log.info("nobody reads this")
    assert log.lost == 3
    drain(reader)
    log.info("and this")
    lines = os.read(reader, 65_536).decode().splitlines()
    assert [line.split(None, 2)[2] for line in lines] == ["WARN  3 lines of the log were lost", "INFO  and this"]
    assert log.lost == 0


def test_a_terminal_that_nobody_reads_costs_lines_and_never_blocks() -> None:
    outer, inner = pty.openpty()
    log = Log(inner, environ={}, clock=lambda: NOON, shared=True)
    # A signal ends a wait that should not be, and the test.
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, 5.0)
    try:
        for _ in range(1000):
            log.info("x" * 1000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
    assert log.lost
    assert os.get_blocking(inner)  # others who share it are not concerned
    drain(outer)
    log.info("and this")
    assert "lines of the log were lost" in os.read(outer, 65_536).decode()
    os.close(outer)
    os.close(inner)


def _too_long(number: int, frame: object) -> None:
    msg = "the log waits for the terminal"
    raise AssertionError(msg)


def test_a_shared_pipe_is_let_go_when_the_descriptor_becomes_another_file(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = Log(writer, environ={}, clock=lambda: NOON, shared=True)
    log.info("one")
    with (tmp_path / "log").open("wb") as file:
        os.dup2(file.fileno(), writer)
    log.renew()
    log.info("two")
    os.close(writer)
    assert os.read(reader, 65_536).endswith(b"one\n")
    assert os.read(reader, 65_536) == b""
    os.close(reader)
    assert (tmp_path / "log").read_text().endswith("two\n")


def test_a_line_to_a_pipe_is_short_enough_to_be_written_whole_or_not_at_all(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    text_log(writer).info("x" * 100_000)
    assert 4000 < len(os.read(reader, 65_536)) <= 4096


def test_a_full_socket_costs_lines_and_never_blocks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fill(ours.fileno())
        log = text_log(ours.fileno())
        log.info("nobody reads this")
        assert log.lost == 1


def test_a_reader_that_left_costs_lines() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = text_log(writer)
    log.info("one")
    os.close(writer)
    log.info("two")
    assert log.lost == 2


def test_a_full_disk_costs_lines() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    log = text_log(fd)
    log.error("no space left")
    os.close(fd)
    assert log.lost == 1


def test_a_log_on_a_closed_descriptor_costs_lines() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    log = text_log(writer)
    log.info("one")
    assert log.lost == 1


def test_colour_is_for_terminals_without_no_color() -> None:
    outer, inner = pty.openpty()
    Log(inner, environ={}, clock=lambda: NOON).error("red\x1b[32m")
    coloured = os.read(outer, 4096)
    Log(inner, environ={"NO_COLOR": "1"}, clock=lambda: NOON).error("plain")
    plain = os.read(outer, 4096)
    os.close(outer)
    os.close(inner)
    assert coloured.startswith(b"\x1b[31m")
    assert coloured.rstrip().endswith(b"ERROR red\\x1b[32m\x1b[0m")
    assert b"\x1b" not in plain


def test_lines_of_several_threads_do_not_mix(file: tuple[int, Path]) -> None:
    fd, path = file
    log = text_log(fd)

    def say(word: str) -> None:
        for _ in range(50):
            log.info(word * 200)

    threads = [threading.Thread(target=say, args=(word,)) for word in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words = [line.split()[3] for line in path.read_text().splitlines()]
    assert len(words) == 200
    assert all(len(set(word)) == 1 and len(word) == 200 for word in words)


def test_plain_text_is_not_changed() -> None:
    assert escape("GET /größe – ✓ “quoted”") == "GET /größe – ✓ “quoted”"
