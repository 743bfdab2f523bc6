"""Template of the workers of a generation: application, settings, listeners and descriptors, made once.

Makes no worker: `fork_server.py` does.
"""

from __future__ import annotations

from srvd.config.settings import PoolSettings
from srvd.linux.processes.dispositions import NOTHING, Dispositions
from srvd.linux.scoreboard import Board
from srvd.record import Record
from srvd.wire import links
from srvd.worker.app.releases import Watch
from srvd.worker.boot import Preloaded
from srvd.worker.net.acceptor import Listening
from srvd.worker.supervision.reconnect import Home

__all__ = ["WorkerTemplate"]


class WorkerTemplate(Record):
    """The parts that all workers of a generation share."""

    wanted: links.Load
    preloaded: Preloaded | None  # None: each worker loads the application
    board: Board
    listening: Listening
    pool: PoolSettings
    stacks: int = -1  # descriptor of the file for the zygote's own stacks
    has_lifeline: bool = False  # whether the signal of its end has a handler
    hold: int = -1  # the lifeline's end that the zygote holds; the daemon has it, too
    home: Home | None = None  # None: a worker leaves when its link ends
    dispositions: Dispositions = NOTHING  # the application's handling of signals, which the zygote has put away
    warms: bool = False  # each worker calls the paths of `warm` before it is ready
    watch: Watch | None = None
