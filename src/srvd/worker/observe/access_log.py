"""Writes the access log: gathers lines for a second at most, and writes them with one atomic write.

After a worker is killed, its zygote writes the gathered lines: `rescue`. Formats no line (`http/access_line.py`), and
never makes a request wait: lines that the disk or the pipe does not take are lost, and counted.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from errno import ENOSPC
from select import POLLOUT
from select import poll as make_poll
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from srvd.http.access_line import LONGEST, Names, Place, Record, compile_format
from srvd.linux import output
from srvd.worker.loop import NEVER
from srvd.worker.observe.access_buffer import AccessBuffer

if TYPE_CHECKING:
    from srvd.log import Log
    from srvd.worker.loop import Loop

__all__ = ["STANDARD_OUTPUT", "AccessLog", "rescue"]

STANDARD_OUTPUT = "-"
"""The path that stands for the daemon's standard output."""

_DELAY = 1.0
"""The most seconds that a line waits to be written."""

_BATCH = 65_536
"""Gathered bytes that are written at once, before the second has passed."""

_ATOMIC = 4096
"""PIPE_BUF of pipe(7): a longer write may be interleaved with writes of other workers."""


class AccessLog:
    """The access log of one worker. Any thread may call `add`; only the thread of the loop, other methods."""

    def __init__(
        self,
        path: str,
        format: str,  # noqa: A002 — the setting's name
        loop: Loop,
        log: Log,
        lines: AccessBuffer,
        names: Names,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`lines` must be empty, and belongs to the log from now on. `report` is called, on any thread, with the reason
        when lines begin to be lost, and with "" when no more are lost.
        """
        self._report = report
        self._path = path
        self._format = format
        self._loop = loop
        self._log = log
        self._lock = Lock()
        self._lines = lines
        self._sink: _Sink | None = None
        self._names = names
        self._spell = compile_format(format, Place(os.getpid(), _zone, names))
        self._torn = False
        self._missed = 0  # lines lost since the last written one
        self.lost = 0  # lines ever
        self.deadline = NEVER
        if problem := self._open():
            report(problem)
        loop.watch(self)

    def add(self, record: Record) -> None:
        """Adds a line, to be written within a second."""
        line = f"{self._spell(record)}\n".encode()
        with self._lock:
            # A line has 8 KiB at most, and the buffer has room for a line beyond a batch.
            if self._lines.add(line) >= _BATCH:
                self._flush()
            elif self.deadline == NEVER:
                self.deadline = time.monotonic() + _DELAY
                self._loop.due_at(self.deadline)

    def expire(self, now: float) -> None:
        """Writes the gathered lines, after the oldest has waited for a second."""
        with self._lock:
            self._flush()

    def reopen(self) -> str:
        """Writes the gathered lines to the former file, and opens the path anew. Returns the reason of a failure or "".

        The former file stays in use if the path cannot be opened.
        """
        with self._lock:
            self._flush()
            return self._open()

    def close(self) -> None:
        """Writes the gathered lines, and closes the file."""
        with self._lock:
            self._flush()
            if self._sink is not None:
                os.close(self._sink.fd)
                self._sink = None
        self._loop.forget(self)

    def _open(self) -> str:
        try:
            sink = _open_sink(self._path)
        except OSError as exc:
            problem = f"open the access log {self._path}: {exc.strerror}"
            kept = "the former file stays in use" if self._sink is not None else "its lines are lost until it can be"
            self._log.error(f"{problem}; {kept}")
            return problem
        if self._sink is not None:
            os.close(self._sink.fd)
        self._sink = sink
        self._torn = False
        self._spell = compile_format(self._format, Place(os.getpid(), _zone, self._names, sink.longest))
        return ""

    def _flush(self) -> None:
        self.deadline = NEVER
        if not self._lines.size:
            return
        data = self._lines.take()
        if self._sink is None and self._missed:  # reported already; perhaps the path can be opened by now
            self._open_quietly()
        sink = self._sink
        missed = data.count(b"\n") - (0 if sink is None else self._write(sink, data))
        self._lines.clear()
        if missed:
            self.lost += missed
            self._missed += missed
        elif self._missed:
            self._log.warning(f"access log {self._path}: lines lost: {self._missed}; it takes them again")
            self._report("")
            self._missed = 0

    def _open_quietly(self) -> None:
        try:
            self._sink = _open_sink(self._path)
        except OSError:  # as before
            self._sink = None

    def _write(self, sink: _Sink, lines: bytes) -> int:
        """Writes lines, and returns how many were written whole."""
        taken = 0
        for data in _batches(lines, sink.most):
            whole = b"\n" + data if self._torn else data
            try:
                written = sink.write(whole)
            except OSError as exc:
                if not self._missed:
                    problem = f"write the access log {self._path}: {exc.strerror}"
                    self._log.error(f"{problem}; its lines are lost meanwhile")
                    self._report(problem)
                return taken
            if written < len(whole):  # the disk is full; the next write begins with a newline
                self._torn = whole[written - 1 : written] != b"\n"
                return taken + whole[:written].count(b"\n", len(whole) - len(data))
            self._torn = False
            taken += data.count(b"\n")
        return taken


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


def _open_sink(path: str) -> _Sink:
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
        fd = os.open(path, flags | os.O_CREAT, 0o640)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return _Sink(fd, _BATCH, LONGEST, False, False)
    return _Sink(fd, _ATOMIC, _ATOMIC, stat.S_ISSOCK(mode), polled)


def _batches(lines: bytes, most: int) -> Iterator[bytes]:
    """Yields the lines in batches of at most so many bytes; a longer line is a batch of its own."""
    if most >= _BATCH:
        yield lines
        return
    start = 0
    while start < len(lines):
        # One byte is left for a newline that ends a torn line.
        end = lines.rfind(b"\n", start, start + most - 1) + 1 or lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end


def rescue(path: str, lines: AccessBuffer) -> tuple[int, str]:
    """Writes the lines that a killed process has left. Returns how many could not be written, and the reason."""
    data = lines.take()
    data = data[: data.rfind(b"\n") + 1]
    left = data.count(b"\n")
    if not left:
        return 0, ""
    try:
        sink = _open_sink(path)
        try:
            for batch in _batches(data, sink.most):
                if sink.write(batch) < len(batch):
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                left -= batch.count(b"\n")
        finally:
            os.close(sink.fd)
    except OSError as exc:
        return left, exc.strerror or str(exc)
    return 0, ""


def _zone(at: int) -> int:
    return time.localtime(at).tm_gmtoff
