"""Queues bytes that a socket did not take yet, in memory first, then in unnamed files; and parts of plain files.

Sends in the order of `add`, never blocks, and is bounded: `add` returns bytes without a place. Used by one thread at a
time (see `sender.py`).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from time import monotonic

from srvd.worker.net.bodies.budget import IN_MEMORY, Budget
from srvd.worker.net.bodies.pieces import SHORT, append_short
from srvd.worker.net.bodies.spool import unnamed_file
from srvd.worker.net.file_span import Span
from srvd.worker.net.transport import READ, Transport

__all__ = ["SendQueue"]

# sendfile(2) sends at most 2 GiB at a time; a smaller limit keeps one fast client from occupying the loop.
_AT_ONCE = 1 << 20

_SEGMENT = 64 << 20
"""Bytes of one unnamed file. A sent file is closed, so a client that is always behind does not fill the disk."""


class _File:
    """A part of a file to send; owns the descriptor. `spilled`: an unnamed file, to which more bytes may be added."""

    __slots__ = ("end", "fd", "offset", "spilled")

    def __init__(self, fd: int, offset: int, end: int, *, spilled: bool) -> None:
        self.fd = fd
        self.offset = offset
        self.end = end
        self.spilled = spilled


class SendQueue:
    __slots__ = ("_at", "_budget", "_held", "_memory", "broken", "items", "since")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._at = 0  # sent bytes of the first item, if it is in memory
        self._held = 0  # waiting bytes, without those of the application's files
        self._memory = 0  # bytes taken from the budget
        self.items: deque[bytes | bytearray | _File] = deque()
        self.since = 0.0
        """When the client last took bytes, or when the queue was last empty. Valid only while bytes wait."""
        self.broken = False
        """Whether the connection cannot be written to any more, or the client takes nothing."""

    @property
    def held(self) -> int:
        """The number of waiting bytes, without those of the application's files."""
        return self._held

    def add(self, data: bytes | memoryview, *, bounded: bool = True) -> memoryview | None:
        """Queues the data, and returns the part without a place within the limit, or on the disk; None if there is
        none. Not `bounded`: keeps all the data in memory, for answers of the server itself.
        """
        view = memoryview(data)
        fits = len(view) if not bounded else min(len(view), max(self._budget.response_limit - self._held, 0))
        kept = view[:fits]
        if fits and not self.items:
            self.since = monotonic()
        if not bounded or (self._segment() is None and self._memory + fits <= IN_MEMORY and self._budget.take(fits)):
            self._remember(kept, bounded=bounded)
        else:
            fits = self._spill(kept)
        self._held += fits
        return view[fits:] if fits < len(view) else None

    def add_file(self, span: Span) -> None:
        """Queues a part of an open file, and closes the descriptor in the end."""
        if not self.items:
            self.since = monotonic()
        self.items.append(_File(span.fd, span.offset, span.offset + span.length, spilled=False))

    def flush(self, sock: Transport) -> bool:
        """Sends as many bytes as the socket takes; returns whether it took any. Raises `OSError` if the connection is
        broken, `EOFError` if a file has become shorter than its span.
        """
        taken = 0
        items = self.items
        while items and taken < _AT_ONCE:
            item = items[0]
            try:
                sent = self._send_file(sock, item) if isinstance(item, _File) else self._send_piece(sock, item)
            except BlockingIOError:
                break
            taken += sent
        if taken:
            self.since = monotonic()
        return taken > 0

    def close(self) -> None:
        """Drops all bytes not sent, and closes the files."""
        for item in self.items:
            if isinstance(item, _File):
                os.close(item.fd)
        self.items.clear()
        self._give_back(self._memory)
        self._at = self._held = 0

    def _send_piece(self, sock: Transport, item: bytes | bytearray) -> int:
        at = self._at
        sent = sock.send(memoryview(item)[at:])
        self._held -= sent
        if at + sent == len(item):
            self.items.popleft()
            self._at = 0
            self._give_back(min(len(item), self._memory))
        else:
            self._at = at + sent
        return sent

    def _send_file(self, sock: Transport, file: _File) -> int:
        count = min(file.end - file.offset, _AT_ONCE)
        if isinstance(sock, socket.socket):
            sent = os.sendfile(sock.fileno(), file.fd, file.offset, count) if count else 0
        else:  # TLS: the bytes have to be encrypted
            data = os.pread(file.fd, min(count, READ), file.offset)
            sent = sock.send(data) if data else 0
        if not sent and count:
            raise EOFError
        file.offset += sent
        if file.spilled:
            self._held -= sent
        if file.offset == file.end:
            self.items.popleft()
            os.close(file.fd)
        return sent

    def _remember(self, view: memoryview, *, bounded: bool) -> None:
        self._memory += len(view) if bounded else 0
        if len(view) > SHORT:
            # A copy: the rest of a long block must not keep the whole block in memory. A whole block is taken as it is.
            whole = view.obj
            self.items.append(whole if isinstance(whole, bytes) and len(whole) == len(view) else bytes(view))
        elif len(view):
            append_short(self.items, view)

    def _segment(self) -> _File | None:
        """Returns the unnamed file at the end of the queue, to which bytes can be added; None without one."""
        last = self.items[-1] if self.items else None
        return last if isinstance(last, _File) and last.spilled else None

    def _spill(self, view: memoryview) -> int:
        """Writes bytes to unnamed files. Returns how many: fewer if the disk is full, or descriptors are short."""
        done = 0
        try:
            while done < len(view):
                segment = self._segment()
                if segment is None or segment.end >= _SEGMENT:
                    done += self._begin_segment(view[done : done + _SEGMENT])
                else:
                    written = os.pwrite(segment.fd, view[done : done + _SEGMENT - segment.end], segment.end)
                    segment.end += written
                    done += written
        except OSError:
            return done
        return done

    def _begin_segment(self, view: memoryview) -> int:
        fd = unnamed_file()
        try:
            written = os.pwrite(fd, view, 0)
        except OSError:
            os.close(fd)
            raise
        self.items.append(_File(fd, 0, written, spilled=True))
        return written

    def _give_back(self, size: int) -> None:
        if size:
            self._memory -= size
            self._budget.give(size)
