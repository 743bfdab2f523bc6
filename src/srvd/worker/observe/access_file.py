"""The file, pipe or socket that an access log is written to: whole lines, each write atomic, and none that waits.

Gathers no lines (`access_buffer.py`) and counts no lost ones (`access_log.py`).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from select import POLLOUT
from select import poll as make_poll
from typing import NamedTuple

from srvd.http.access_line import LONGEST
from srvd.linux import output

__all__ = ["BATCH", "STANDARD_OUTPUT", "AccessFile"]

STANDARD_OUTPUT = "-"
"""The path that stands for the daemon's standard output."""

BATCH = 65_536
"""Bytes of lines that are written at once to a file."""

_ATOMIC = 4096
"""PIPE_BUF of pipe(7): a longer write may be interleaved with writes of other workers."""


class AccessFile:
    """The file at `path`, not open at first."""

    def __init__(self, path: str, mode: int = 0o640) -> None:
        self.path = path
        self._mode = mode  # of a new file
        self._sink: _Sink | None = None
        self._torn = False  # the last line was not written whole

    @property
    def is_open(self) -> bool:
        return self._sink is not None

    @property
    def longest(self) -> int:
        """The most bytes of one line."""
        return LONGEST if self._sink is None else self._sink.longest

    def open(self) -> None:
        """Opens the path, anew if it is open. Raises `OSError`; the former file stays in use then."""
        sink = _open_sink(self.path, self._mode)
        self.close()
        self._sink = sink
        self._torn = False

    def close(self) -> None:
        if self._sink is not None:
            os.close(self._sink.fd)
            self._sink = None

    def write(self, lines: bytes) -> Written:
        """Writes lines, as many as the file takes. It must be open."""
        sink = self._sink
        assert sink is not None
        taken = 0
        for data in _batches(lines, sink.most):
            whole = b"\n" + data if self._torn else data
            try:
                written = sink.write(whole)
            except OSError as exc:
                return Written(taken, exc)
            if written < len(whole):  # the disk is full; the next write begins with a newline
                self._torn = whole[written - 1 : written] != b"\n"
                return Written(taken + whole[:written].count(b"\n", len(whole) - len(data)))
            self._torn = False
            taken += data.count(b"\n")
        return Written(taken)


class Written(NamedTuple):
    lines: int  # that were written whole
    error: OSError | None = None  # for which the others were not


class _Sink(NamedTuple):
    """Where lines go."""

    fd: int
    most: int  # bytes that one write may have
    longest: int  # bytes that one line may have
    is_socket: bool
    polled: bool  # a write might block, so poll(2) must be called first

    def write(self, data: bytes) -> int:
        """Writes bytes, and returns how many were taken. Raises `OSError`; `BlockingIOError` if none are taken now."""
        if self.is_socket:
            sock = socket.socket(fileno=self.fd)
            try:
                return sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            finally:
                sock.detach()
        if self.polled:
            poll = make_poll()
            poll.register(self.fd, POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError(11, "it is full")
        return os.write(self.fd, data)


def _open_sink(path: str, created: int) -> _Sink:
    """Raises `OSError`."""
    # O_NONBLOCK: neither opening a pipe without a reader nor writing to a full one may block. No effect on disks.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    polled = False
    if path == STANDARD_OUTPUT:
        try:
            # A new open file description: O_NONBLOCK on the shared one would hold for other processes, too.
            fd = os.open(f"/proc/self/fd/{output.NUMBER}", flags)
        except OSError:  # a socket (ENXIO), or a terminal or a pipe of another user (EACCES)
            fd = os.dup(output.NUMBER)
            os.set_inheritable(fd, False)
            polled = True
    else:
        fd = os.open(path, flags | os.O_CREAT, created)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return _Sink(fd, BATCH, LONGEST, False, False)
    return _Sink(fd, _ATOMIC, _ATOMIC, stat.S_ISSOCK(mode), polled)


def _batches(lines: bytes, most: int) -> Iterator[bytes]:
    """Yields the lines in batches of at most so many bytes; a longer line is a batch of its own."""
    if most >= BATCH:
        yield lines
        return
    start = 0
    while start < len(lines):
        # One byte is left for a newline that ends a torn line.
        end = lines.rfind(b"\n", start, start + most - 1) + 1 or lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end
