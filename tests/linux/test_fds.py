"""Claims about links and the descriptors that travel on them."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from srvd.errors import BadFrame
from srvd.linux import fds
from tests.support.waiting import wait_for


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    before = open_fds()
    ours, theirs = fds.link_pair()
    yield ours, theirs
    ours.close()
    theirs.close()
    assert open_fds() == before


Link = tuple[socket.socket, socket.socket]


def test_datagrams_arrive_whole_and_in_order(link: Link) -> None:
    ours, theirs = link
    assert fds.send(ours, b"one")
    assert fds.send(ours, b"two")
    assert fds.receive(theirs, 100) == (b"one", [])
    assert fds.receive(theirs, 100) == (b"two", [])
    assert fds.receive(theirs, 100) is None


def test_a_descriptor_arrives_close_on_exec(link: Link) -> None:
    ours, theirs = link
    read, write = os.pipe()
    assert fds.send(ours, b"pipe", [write])
    os.close(write)
    received = fds.receive(theirs, 100, 1)
    assert received is not None
    datagram, (fd,) = received
    assert datagram == b"pipe"
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.write(fd, b"through")
    assert os.read(read, 100) == b"through"
    fds.close_all([fd, read])


def test_a_full_link_refuses_instead_of_blocking(link: Link) -> None:
    ours, theirs = link
    sent = 0
    while fds.send(ours, b"x" * 1000):
        sent += 1
    assert 0 < sent < 10_000
    assert fds.receive(theirs, 1000) is not None
    assert fds.send(ours, b"x")


def test_the_end_of_the_other_side_is_an_empty_datagram(link: Link) -> None:
    ours, theirs = link
    theirs.close()
    assert fds.receive(ours, 100) == (b"", [])
    with pytest.raises(BrokenPipeError):
        fds.send(ours, b"x")


def test_the_last_words_of_a_side_that_left_something_unread_are_heard(link: Link) -> None:
    ours, theirs = link
    fds.send(ours, b"never read")
    fds.send(theirs, b"last words")
    theirs.close()
    assert fds.receive(ours, 100) == (b"last words", [])
    assert fds.receive(ours, 100) == (b"", [])


def test_descriptors_nobody_asked_for_are_closed_and_end_the_link(link: Link) -> None:
    ours, theirs = link
    read, write = os.pipe()
    before = open_fds()
    for most in (0, 1):
        fds.send(ours, b"gift", [read, write])
        with pytest.raises(BadFrame, match="descriptors that nobody asked for"):
            fds.receive(theirs, 100, most)
    wait_for(lambda: open_fds() == before)
    fds.close_all([read, write])


def test_descriptors_that_find_no_number_are_all_lost_and_the_words_are_not(link: Link) -> None:
    ours, theirs = link
    read, write = os.pipe()
    fds.send(ours, b"both", [read, write])
    before = open_fds()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(read)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))
    os.close(spare)  # room for one of the two
    try:
        received = fds.receive(theirs, 100, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert received == (b"both", [])
    wait_for(lambda: open_fds() == before)
    fds.close_all([read, write])


def test_a_datagram_over_the_limit_ends_the_link_and_leaks_nothing(link: Link) -> None:
    ours, theirs = link
    fds.send(ours, b"x" * 101, [ours.fileno()])
    before = open_fds()
    with pytest.raises(BadFrame):
        fds.receive(theirs, 100, 1)
    wait_for(lambda: open_fds() == before)


def test_closing_twice_is_harmless(link: Link) -> None:
    read, write = os.pipe()
    fds.close_all([read, write])
    fds.close_all([read, write])


def test_a_memfd_is_read_from_its_beginning() -> None:
    fd = fds.memfd("test", b"content" * 100_000)
    assert os.read(fd, 1 << 20) == b"content" * 100_000
    os.close(fd)
