"""What a connection has to say and its socket did not take yet: bytes, and spans of files.

Bounded by its owner, who asks the application for nothing more before it is empty: what is made ahead of the reader is
what the kernel's send buffer takes, and the rest of one block.
"""

from __future__ import annotations

import os
from collections import deque

from srvd.worker.files import Span
from srvd.worker.transport import Transport

__all__ = ["Outbox"]

# sendfile(2) sends at most 2 GiB at a time; less keeps one reader from holding the loop.
_AT_ONCE = 1 << 20


class Outbox:
    __slots__ = ("items",)

    def __init__(self) -> None:
        self.items: deque[memoryview | Span] = deque()

    def add(self, data: bytes | memoryview) -> None:
        self.items.append(memoryview(data))

    def add_span(self, span: Span) -> None:
        self.items.append(span)

    def flush(self, sock: Transport) -> int:
        """Sends what the socket takes; how many bytes it took. Raises `OSError` when the connection is broken,
        `EOFError` when a file has become shorter than its span.
        """
        taken = 0
        while self.items and taken < _AT_ONCE:
            item = self.items[0]
            try:
                sent = _send_span(sock, item) if isinstance(item, Span) else sock.send(item)
            except BlockingIOError:
                break
            taken += sent
            if isinstance(item, Span):
                rest: memoryview | Span = Span(item.fd, item.offset + sent, item.length - sent)
                over = item.length == sent
            else:
                rest = item[sent:]
                over = len(item) == sent
            if over:
                self.items.popleft()
            else:
                self.items[0] = rest
        return taken


def _send_span(sock: Transport, span: Span) -> int:
    sent = os.sendfile(sock.fileno(), span.fd, span.offset, min(span.length, _AT_ONCE))
    if not sent:
        raise EOFError
    return sent
