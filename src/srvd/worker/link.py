"""The worker's end of the socket to its daemon.

Spells no message (`wire/links.py`) and obeys none (`commands.py`).
"""

from __future__ import annotations

import socket

from srvd.linux import fds
from srvd.wire import links

__all__ = ["Link"]


class Link:
    """The worker's end of its link. Nothing that is said waits for the daemon, but for the first and last words."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def say(self, message: links.Message, *, wait: bool = False) -> bool:
        """False: the daemon does not read, or is gone (which the end of file will tell)."""
        try:
            return fds.send(self.sock, links.encode(message), wait=wait)
        except OSError:
            return False

    def ring(self) -> bool:
        """The doorbell: a request began while nobody watched the scoreboard."""
        return self.say(links.WatchBell())

    def hear(self) -> links.Message | None:
        """The next order; None: there is none now. Raises `EOFError` when there will be none any more."""
        try:
            received = fds.receive(self.sock, links.LIMIT)
        except OSError as exc:
            raise EOFError from exc
        if received is None:
            return None
        if not received[0]:
            raise EOFError
        return links.decode(received[0], links.TO_WORKER)
