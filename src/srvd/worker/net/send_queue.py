"""What a connection has to say and its socket did not take yet: in memory, then in unnamed files; and plain files.

Sends in the order in which things were added, never blocks, and is bounded: `add` returns what has no place. Used by
one thread at a time (see `sender.py`).
"""

from __future__ import annotations

import os
import socket
from collections import deque
from time import monotonic

from srvd.worker.net.body_spool import unnamed_file
from srvd.worker.net.budget import IN_MEMORY, Budget
from srvd.worker.net.file_span import Span
from srvd.worker.net.pieces import SHORT, append_short
from srvd.worker.net.transport import READ, Transport

__all__ = ["SendQueue"]

# sendfile(2) sends at most 2 GiB at a time; less keeps one reader from holding the loop.
_AT_ONCE = 1 << 20

_SEGMENT = 64 << 20
"""Bytes of one unnamed file. One that was sent is closed, so a reader that is always behind does not fill the disk."""


class _File:
    """A part of a file that is to be sent; owns the descriptor. `spilled`: an unnamed file, to which more may come."""

    __slots__ = ("end", "fd", "offset", "spilled")

    def __init__(self, fd: int, offset: int, end: int, *, spilled: bool) -> None:
        self.fd = fd
        self.offset = offset
        self.end = end
        self.spilled = spilled


class SendQueue:
    __slots__ = ("_at", "_budget", "_held", "_limit", "_memory", "broken", "items", "since")

    def __init__(self, budget: Budget, limit: int) -> None:
        """`limit`: so many bytes may wait, in memory and in files together."""
        self._budget = budget
        self._limit = limit
        self._at = 0  # so much of the first item is sent, if it is in memory
        self._held = 0  # bytes that wait, but for those of the application's files
        self._memory = 0  # so many bytes of the budget are taken
        self.items: deque[bytes | bytearray | _File] = deque()
        self.since = 0.0
        """When the reader took something last, or there was nothing to take. Only while there is something."""
        self.broken = False
        """The connection cannot be written to any more, or its reader takes nothing."""

    def add(self, data: bytes | memoryview, *, bounded: bool = True) -> memoryview | None:
        """Keeps the data; what has no place within the bounds, or on the disk, is returned. Not `bounded`: keeps all,
        in memory; for what the server says itself.
        """
        view = memoryview(data)
        fits = len(view) if not bounded else min(len(view), max(self._limit - self._held, 0))
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
        """A part of an open file; closes the descriptor in the end."""
        if not self.items:
            self.since = monotonic()
        self.items.append(_File(span.fd, span.offset, span.offset + span.length, spilled=False))

    def flush(self, sock: Transport) -> bool:
        """Sends what the socket takes; whether it took something. Raises `OSError` when the connection is broken,
        `EOFError` when a file has become shorter than its span.
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
        """Lets go of everything that was not sent."""
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
        else:  # it has to be encrypted
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
            # A copy: the rest of a long block must not keep all of it. One that is whole is taken as it is.
            whole = view.obj
            self.items.append(whole if isinstance(whole, bytes) and len(whole) == len(view) else bytes(view))
        elif len(view):
            append_short(self.items, view)

    def _segment(self) -> _File | None:
        """The unnamed file that is being written to."""
        last = self.items[-1] if self.items else None
        return last if isinstance(last, _File) and last.spilled else None

    def _spill(self, view: memoryview) -> int:
        """Writes it to an unnamed file; how much of it: less when there is no room on the disk, or no descriptor."""
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
