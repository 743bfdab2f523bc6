"""Sends and receives messages at the worker's end of its link to the daemon.

Encodes no message (`wire/links.py`) and obeys none (`commands.py`).
"""

from __future__ import annotations

import socket

from srvd.errors import BadFrame
from srvd.linux import fds
from srvd.wire import links

__all__ = ["Link"]


class Link:
    """The worker's end of its link. Sending never blocks unless the caller asks to `wait`, as for READY and BYE."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.ended = False
        """Whether no message can come any more, until `renew`."""

    def renew(self, sock: socket.socket) -> None:
        """Takes another link in the place of the one that has ended."""
        former, self.sock = self.sock, sock
        former.close()
        self.ended = False

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
        """Returns the next message; None if none waits. Raises `EOFError` at the end of the link, `BadFrame` for a
        malformed message, after which nothing more is heard.
        """
        try:
            received = fds.receive(self.sock, links.LIMIT)
            if received is None:
                return None
            if received[0]:
                return links.decode(received[0], links.TO_WORKER)
        except OSError as exc:
            self.ended = True
            raise EOFError from exc
        except BadFrame:
            self.ended = True
            raise
        self.ended = True
        raise EOFError
