"""Everything that a zygote gives to a new worker.

Starts nothing: `main.py` does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from srvd.config.settings import PoolSettings
    from srvd.ids import WorkerId
    from srvd.linux.scoreboard import Board
    from srvd.worker.app.hooks import Hooks
    from srvd.worker.app.releases import Watch
    from srvd.worker.net.acceptor import Listening
    from srvd.worker.observe.access_buffer import AccessBuffer
    from srvd.worker.supervision.reconnect import Home

__all__ = ["Boot", "Preloaded"]


class Preloaded(NamedTuple):
    """An application that was loaded before the fork, and the hooks of its pool."""

    app: object
    hooks: Hooks


class Boot(NamedTuple):
    """What a worker is, and what it is given. It owns the descriptors."""

    id: WorkerId
    board: Board
    slot: int  # on the board
    link: socket.socket  # SOCK_SEQPACKET, blocking
    listening: Listening
    application: Preloaded | Callable[[], object]  # what is not preloaded is loaded by this function
    settings: PoolSettings
    home: Home | None = None  # None: the worker leaves when its link ends
    buffer: AccessBuffer | None = None  # of the access log, shared with the zygote; None: the worker makes its own
    lifeline: int = -1  # reads an end of file once no process is left that could end this worker; -1: none
    warms: bool = False  # requests paths before READY, to import what other workers inherit from their zygote
    watch: Watch | None = None

    @property
    def descriptors(self) -> Iterable[int]:
        """Yields the descriptors that no child process of the application may keep open."""
        sockets = (sock.fileno() for sock in (self.link, *self.listening.sockets))
        home = () if self.home is None else (self.home.lock, self.home.bell, self.home.stderr, self.home.stacks)
        return (*sockets, *home, self.board.fd, self.listening.nudge, self.lifeline)
