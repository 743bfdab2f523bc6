"""Sends and receives messages at the worker's end of its link to the daemon.

Encodes no message (`wire/links.py`) and obeys none (`commands.py`).
"""

from __future__ import annotations

import socket

from srvd.linux import fds
from srvd.wire import links

__all__ = ["Link"]


class Link:
    """The worker's end of its link. Sending never blocks unless the caller asks to `wait`, as for READY and BYE."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def say(self, message: links.Message, *, wait: bool = False) -> bool:
        """Sends a message. Returns False if the link is full, or the daemon is gone (`hear` raises `EOFError` then)."""
        try:
            return fds.send(self.sock, links.encode(message), wait=wait)
        except OSError:
            return False

    def ring(self) -> bool:
        """Wakes the daemon because a request began while it did not read the scoreboards."""
        return self.say(links.WatchBell())

    def hear(self) -> links.Message | None:
        """Returns the next message; None if none waits. Raises `EOFError` at the end of the link."""
        try:
            received = fds.receive(self.sock, links.LIMIT)
        except OSError as exc:
            raise EOFError from exc
        if received is None:
            return None
        if not received[0]:
            raise EOFError
        return links.decode(received[0], links.TO_WORKER)
