"""The daemon's event loop, with real descriptors, timers and signals."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from srvd.daemon.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def turn(loop: Loop, seconds: float = 0.02) -> None:
    loop.call_later(seconds, loop.stop)
    loop.run()


def test_a_reader_is_called_while_there_is_something_to_read(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    got = bytearray()
    loop.add_reader(ours.fileno(), lambda: got.extend(ours.recv(1)))
    turn(loop)
    assert got == b""
    theirs.send(b"abc")
    turn(loop)
    assert got == b"abc"
    loop.remove_reader(ours.fileno())
    theirs.send(b"d")
    turn(loop)
    assert got == b"abc"


def test_a_writer_and_a_reader_of_one_descriptor_do_not_disturb_each_other(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    called: list[str] = []

    def write() -> None:
        called.append("write")
        loop.remove_writer(ours.fileno())

    def read() -> None:
        called.append("read")
        ours.recv(10)

    loop.add_reader(ours.fileno(), read)
    loop.add_writer(ours.fileno(), write)
    turn(loop)
    assert called == ["write"]
    theirs.send(b"x")
    turn(loop)
    assert called == ["write", "read"]
    loop.remove_reader(ours.fileno())
    loop.add_writer(ours.fileno(), write)
    turn(loop)
    assert called == ["write", "read", "write"]


def test_the_end_of_a_peer_is_told_to_its_reader_and_its_writer(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    ours.send(b"x" * 100)
    theirs.close()  # with data unread: a reset, which is EPOLLERR
    told: set[str] = set()
    loop.add_reader(ours.fileno(), told.add, "reader")
    loop.add_writer(ours.fileno(), told.add, "writer")
    turn(loop)
    assert told == {"reader", "writer"}


def test_who_is_removed_by_a_callback_before_it_is_not_called_in_the_same_turn(loop: Loop) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def heard(number: int) -> None:
        called.append(number)
        for ours, _ in pairs:
            loop.remove_reader(ours.fileno())

    for number, (ours, theirs) in enumerate(pairs):
        loop.add_reader(ours.fileno(), heard, number)
        theirs.send(b"x")
    turn(loop)
    assert len(called) == 1
    for both in pairs:
        for end in both:
            end.close()


def test_a_number_that_is_another_file_now_is_not_taken_for_the_former_one(loop: Loop) -> None:
    """Both are ready in one turn; the callback of the first closes the second and opens another with its number."""
    first, second = socket.socketpair(), socket.socketpair()
    third: list[socket.socket] = []
    called: list[str] = []

    def replace(this: socket.socket, other: socket.socket) -> None:
        called.append("replaced")
        loop.remove_reader(this.fileno())
        number = other.fileno()
        loop.remove_reader(number)
        other.close()
        third.extend(socket.socketpair())
        assert number in {end.fileno() for end in third}
        loop.add_reader(number, called.append, "for nothing")

    for this, other in ((first[0], second[0]), (second[0], first[0])):
        loop.add_reader(this.fileno(), replace, this, other)
    first[1].send(b"x")
    second[1].send(b"x")
    turn(loop)
    assert called == ["replaced"]
    for end in (*first, *second, *third):
        end.close()


def test_a_descriptor_closed_too_early_does_no_harm_when_it_is_removed(loop: Loop) -> None:
    read, write = os.pipe()
    loop.add_reader(read, lambda: None)
    os.close(read)
    os.close(write)
    loop.remove_reader(read)
    turn(loop)


def test_timers_are_called_in_order_and_not_before_their_time(loop: Loop) -> None:
    called: list[tuple[int, float]] = []
    began = loop.time()
    for number in (3, 1, 2):
        loop.call_later(0.02 * number, lambda number=number: called.append((number, loop.time() - began)))
    turn(loop, 0.1)
    assert [number for number, _ in called] == [1, 2, 3]
    assert all(late >= 0.02 * number for number, late in called)


def test_a_timer_of_no_delay_waits_for_the_next_turn(loop: Loop, pair: tuple[socket.socket, socket.socket]) -> None:
    """So that what arrives meanwhile is seen: who asks again and again starves nobody."""
    ours, theirs = pair
    order: list[str] = []

    def again() -> None:
        order.append("timer")
        if len(order) == 1:
            theirs.send(b"x")
        if len(order) < 10:
            loop.call_later(0, again)

    loop.add_reader(ours.fileno(), lambda: order.append(f"read {ours.recv(1)!r}"))
    loop.call_later(0, again)
    turn(loop)
    assert order[:2] == ["timer", "read b'x'"]


def test_a_cancelled_timer_is_not_called_even_in_the_turn_of_its_moment(loop: Loop) -> None:
    called: list[str] = []
    when = loop.time() + 0.01
    second = loop.call_at(when, called.append, "second")
    loop.call_at(when - 0.001, second.cancel)
    time.sleep(0.02)  # both are due
    turn(loop)
    second.cancel()
    assert called == []


def test_deadlines_that_move_for_ever_take_no_more_room(loop: Loop) -> None:
    lasting = [loop.call_later(3600, lambda: None) for _ in range(10)]
    for _ in range(10_000):
        loop.call_later(3600, lambda: None).cancel()
    assert len(loop._timers) < 200
    assert all(timer in loop._timers for timer in lasting)


def test_what_is_called_soon_is_called_in_the_next_turn_and_in_order(loop: Loop) -> None:
    called: list[int] = []

    def first() -> None:
        called.append(1)
        loop.call_soon(called.append, 3)

    loop.call_soon(first)
    loop.call_soon(called.append, 2)
    turn(loop)
    assert called == [1, 2, 3]


def test_a_stop_before_the_run_ends_it_at_once(loop: Loop) -> None:
    loop.call_soon(pytest.fail, "turned")
    loop.stop()
    loop.run()


def test_signals_are_handled_in_a_turn_and_once_for_all_of_a_kind(loop: Loop) -> None:
    came: list[int] = []
    try:
        loop.on_signal(signal.SIGUSR1, came.append, 1)
        loop.on_signal(signal.SIGUSR2, came.append, 2)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert came == []  # not in between of whatever runs
        turn(loop)
        assert came == [1, 2]
        loop.call_later(3600, lambda: None)
        loop.call_later(0.05, os.kill, os.getpid(), signal.SIGUSR1)
        turn(loop, 0.5)  # it also wakes a loop that waits
        assert came == [1, 2, 1]
        loop.close()
        os.kill(os.getpid(), signal.SIGUSR1)  # by default this would be the end
        assert came == [1, 2, 1]
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_what_a_callback_raises_is_told_and_the_others_go_on() -> None:
    bugs: list[str] = []
    loop = Loop(lambda problem: bugs.append(repr(problem)))
    called: list[int] = []
    loop.call_soon(lambda: 1 // 0)
    loop.call_soon(called.append, 1)
    turn(loop)
    loop.close()
    assert bugs == ["ZeroDivisionError('integer division or modulo by zero')"]
    assert called == [1]


def test_without_anyone_to_tell_it_ends_the_run(loop: Loop) -> None:
    loop.call_soon(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        loop.run()


def test_an_idle_loop_does_not_turn(loop: Loop) -> None:
    turns = 0
    real = loop._turn

    def counted() -> None:
        nonlocal turns
        turns += 1
        real()

    loop._turn = counted  # type: ignore[method-assign]
    turn(loop, 0.3)
    assert turns <= 2
