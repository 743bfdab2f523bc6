"""Template of the workers of a generation: application, settings, listeners and descriptors, made once.

Makes no worker: `fork_server.py` does.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from srvd.config.settings import PoolSettings
from srvd.linux.processes.dispositions import NOTHING, Dispositions
from srvd.linux.scoreboard import Board
from srvd.record import Record
from srvd.wire import links
from srvd.worker.app.hooks import Hooks
from srvd.worker.app.releases import Watch
from srvd.worker.reconnect import Home

if TYPE_CHECKING:
    from srvd.worker.net.front import Front

__all__ = ["WorkerTemplate"]


class WorkerTemplate(Record):
    """The parts that all workers of a generation share."""

    wanted: links.Load
    app: object | None
    board: Board
    listeners: list[socket.socket]
    pool: PoolSettings
    hooks: Hooks | None = None  # None: each worker loads them
    fronts: Sequence[Front | None] = ()  # one for each listener
    stacks: int = -1  # descriptor of the file for the zygote's own stacks
    has_lifeline: bool = False  # whether the signal of its end has a handler
    hold: int = -1  # the lifeline's end that the zygote holds; the daemon has it, too
    home: Home | None = None  # None: a worker leaves when its link ends
    nudge: int = -1  # the eventfd by which its workers wake each other, see worker/net/acceptor.py
    dispositions: Dispositions = NOTHING  # the application's handling of signals, which the zygote has put away
    warms: bool = False  # each worker calls the paths of `warm` before it is ready
    watch: Watch | None = None
