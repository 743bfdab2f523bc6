"""Sends queued blocks of a response to a slow client while the application makes the next block, by a watcher of the
hub.

Starts no thread and no greenlet.
"""

from __future__ import annotations

from typing import Any

from srvd.worker.net.send_queue import SendQueue
from srvd.worker.net.sender import Sender, Sending
from srvd.worker.net.transport import Transport

__all__ = ["HubSender"]

_WRITE = 2


class HubSender(Sender):
    """The sender of a worker whose loop is the hub's, `loop`."""

    def __init__(self, loop: Any) -> None:
        super().__init__()
        self._loop = loop
        self._watchers: dict[Sending, Any] = {}

    def begin(self, sock: Transport, queue: SendQueue) -> Sending | None:
        sending = Sending(sock, queue)
        watcher = self._watchers[sending] = self._loop.io(sending.fd, _WRITE)
        watcher.start(self._flush, sending)
        return sending

    def again(self, sending: Sending) -> None:
        watcher = self._watchers[sending]
        if not watcher.active:
            watcher.start(self._flush, sending)

    def end(self, sending: Sending) -> None:
        watcher = self._watchers.pop(sending)
        watcher.stop()
        watcher.close()

    def _flush(self, sending: Sending) -> None:
        queue = sending.queue
        try:
            queue.flush(sending.sock)
        except (OSError, EOFError):
            queue.broken = True
        if queue.broken or not queue.items:
            self._watchers[sending].stop()
