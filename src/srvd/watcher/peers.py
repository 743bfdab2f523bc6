"""The processes of applications that are connected to the watcher: zygotes and workers that load, or serve.

Decides nothing: `main.py` does.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from srvd.linux import credentials
from srvd.wire import watching

__all__ = ["Peer"]


class Peer:
    """One connection of a process."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pool = ""
        self.loading = False
        self.serving = False
        self.since = time.time()
        self._buffer = bytearray()
        pid, self.uid, _ = credentials.of_peer(sock)
        self._pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        self.sock.close()
        os.close(self._pidfd)

    def hear(self) -> list[dict[str, Any]] | None:
        """Returns the messages that have come; None at the end of the connection."""
        try:
            data = self.sock.recv(1 << 18, socket.MSG_DONTWAIT)
            self._buffer += data
            return watching.lines(self._buffer) if data else None
        except BlockingIOError:
            return []
        except (OSError, ValueError):
            return None

    def say(self, **message: Any) -> None:
        with suppress(OSError):
            self.sock.sendall(watching.spell(message), socket.MSG_DONTWAIT)

    def end(self) -> None:
        """Kills the process, which loads code that has changed since."""
        with suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
