"""Claims about the scoreboard: written by one process, read by another, never trusted."""

from __future__ import annotations

import math
import mmap
import os
import time
from collections.abc import Iterator

import msgpack
import pytest

from srvd.errors import SystemRefused
from srvd.linux.scoreboard import Bell, Board, LaneFacts, LoopFacts, lanes_of

LANES = lanes_of(64)


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create(8, LANES)
    yield board
    board.close()


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell.create()
    yield bell
    bell.close()


def test_a_request_under_way_is_seen_with_its_line_and_beginning(board: Board) -> None:
    board.lane(3).begin(2.5, b"GET /slow HTTP/1.1")
    facts = board.read(3)
    assert (facts.busy, facts.began, facts.line) == (1, 2.5, "GET /slow HTTP/1.1")
    assert board.read(2) == LaneFacts()


def test_an_answered_request_counts_by_class_latency_and_bytes(board: Board) -> None:
    lane = board.lane(0)
    lane.begin(10.0, b"GET / HTTP/1.1")
    lane.end(10.001, 404, 512, 10.0)
    facts = board.read(0)
    assert (facts.busy, facts.line, facts.requests, facts.sent) == (0, "", 1, 512)
    assert facts.by_class == (0, 0, 0, 0, 1, 0)
    assert facts.latency.index(1) == (1000).bit_length()  # 1000 µs


@pytest.mark.parametrize("status", [0, 7, 600, 999, -1])
def test_a_status_outside_the_classes_counts_as_none_of_them(board: Board, status: int) -> None:
    lane = board.lane(0)
    lane.begin(10.0, b"")
    lane.end(10.0, status, 0, 10.0)
    assert board.read(0).by_class[0] == 1


def test_the_oldest_request_of_all_lanes_is_the_slots(board: Board) -> None:
    for thread, began in ((0, 7.0), (1, 5.0), (63, 9.0)):
        lane = board.lane(1, thread)
        lane.begin(began, f"GET /{thread} HTTP/1.1".encode())
        lane.connections(2)
    facts = board.read(1)
    assert (facts.busy, facts.began, facts.line, facts.connections) == (3, 5.0, "GET /1 HTTP/1.1", 6)


def test_a_long_line_is_cut_and_a_torn_character_is_replaced(board: Board) -> None:
    board.lane(0).begin(1.0, ("é" * 300).encode())
    assert board.read(0).line == "é" * 76
    board.lane(0).begin(1.0, ("x" + "é" * 300).encode())
    assert board.read(0).line == "x" + "é" * 75 + "\ufffd"


def test_what_is_under_way_in_an_event_loop_is_no_latency(board: Board) -> None:
    lane = board.lane(2)
    lane.event_loop(7, 3, 0.25)
    lane.begin(0.5, b"GET / HTTP/1.1")
    lane.end(1e7, 200, 0, 0.5)
    facts = board.read(2)
    assert facts.event_loop == LoopFacts(7, 3, 0.25)
    assert (len(facts.latency), sum(facts.latency)) == (32, 1)


def test_a_latency_beyond_the_last_bucket_stays_in_it(board: Board) -> None:
    lane = board.lane(0)
    lane.begin(0.5, b"GET / HTTP/1.1")
    lane.end(1e7, 200, 0, 0.5)
    assert board.read(0).latency[-1] == 1


def test_a_cleared_slot_is_empty_and_no_other_one(board: Board) -> None:
    for slot in (1, 2, 3):
        for thread in range(LANES):
            board.lane(slot, thread).begin(1.0, b"GET / HTTP/1.1")
    board.clear(2)
    assert board.read(2) == LaneFacts()
    assert [board.read(slot).busy for slot in (1, 3)] == [LANES, LANES]


def test_reading_an_unused_board_makes_no_pages() -> None:
    board = Board.create(1024, LANES)
    try:
        before = os.fstat(board.fd).st_blocks
        assert all(board.read(slot) == LaneFacts() for slot in range(1024))
        assert os.fstat(board.fd).st_blocks == before
    finally:
        board.close()


def test_what_a_child_writes_the_parent_reads(board: Board, bell: Bell) -> None:
    pid = os.fork()
    if pid == 0:
        mine = Board.attach(os.dup(board.fd), LANES, bell.fd)
        mine.lane(5).begin(42.0, b"GET /child HTTP/1.1")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert board.read(5).line == "GET /child HTTP/1.1"


def test_the_flag_of_the_watcher_is_seen_through_every_mapping(board: Board, bell: Bell) -> None:
    reader = bell.reader()
    other = Board.attach(os.dup(board.fd), LANES, reader)
    lane = other.lane(0)
    assert lane.begin(1.0, b"")
    bell.watching = False
    assert not lane.begin(1.0, b"")
    bell.watching = True
    assert lane.begin(1.0, b"")
    assert bell.watching
    other.close()
    os.close(reader)


def test_a_worker_cannot_write_the_bell(bell: Bell) -> None:
    reader = bell.reader()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(reader, b"\0", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(reader, Bell.SIZE)
    assert os.fstat(reader).st_mode & 0o777 == 0o600  # another user cannot open it anew
    os.close(reader)


def test_the_next_daemon_writes_the_bell_that_a_worker_has_brought(bell: Bell) -> None:
    heir = Bell.adopt(bell.reader())
    heir.watching = False
    assert os.pread(bell.fd, 1, 0) == b"\0"
    heir.close()


def test_a_board_that_is_shorter_than_it_should_be_reads_as_idle() -> None:
    """Not one of ours, then; but no reader ends by SIGBUS."""
    fd = os.memfd_create("short")
    short = Board(fd, 8, 2)
    assert short.read(7) == LaneFacts()
    assert short.tally(7) == (0, 0)
    short.close()


def test_a_worker_cannot_shrink_the_board_under_its_readers(board: Board) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(board.fd, 0)


@pytest.mark.parametrize("began", [math.nan, math.inf, -1.0, 1e300])
def test_nonsense_written_by_a_bad_worker_reads_as_idle(board: Board, began: float) -> None:
    board.lane(0).begin(began, b"GET / HTTP/1.1")
    facts = board.read(0)
    assert (facts.busy, facts.began, facts.line) == (0, 0.0, "")


@pytest.mark.parametrize("lanes", [1, 2, LANES])
def test_scribbled_counters_stay_numbers_that_a_message_holds(lanes: int) -> None:
    board = Board.create(1, lanes)
    for thread in range(lanes):
        lane = board.lane(0, thread)
        lane._row[:] = memoryview(b"\xff" * 512).cast("Q")
        lane.begin(time.monotonic() + 3600.0, b"GET / HTTP/1.1")
    facts = board.read(0)
    assert (facts.busy, facts.began, facts.line) == (0, 0.0, "")
    counts = [facts.requests, facts.sent, facts.connections, *facts.by_class, *facts.latency]
    assert set(counts) == {2**53 - 1}
    assert board.tally(0) == (2**53 - 1, 0)
    assert msgpack.packb(facts)
    lane.end(time.monotonic(), 200, 5, time.monotonic())  # the worker's own counts are not those that were scribbled
    assert (lane._row[2], lane._row[6]) == (1, 5)
    board.close()


def test_another_file_is_no_board(bell: Bell) -> None:
    fd = os.memfd_create("other")
    os.ftruncate(fd, 8000)
    with pytest.raises(SystemRefused, match="is none"):
        Board.attach(fd, 1, bell.fd)
    os.close(fd)


@pytest.mark.parametrize(("slot", "thread"), [(8, 0), (-1, 0), (0, LANES), (0, -1)])
def test_a_lane_outside_the_board_is_refused(board: Board, slot: int, thread: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        board.lane(slot, thread)
