"""The template of the workers of a generation: application, settings, listeners and descriptors, made once.

Makes no worker: `fork_server.py` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from srvd.config.settings import PoolSettings
from srvd.linux.processes import deadman
from srvd.linux.processes.dispositions import NOTHING, Dispositions
from srvd.linux.scoreboard import Board, lanes_of
from srvd.record import Record
from srvd.wire import links
from srvd.worker.app.releases import Watch
from srvd.worker.boot import Preloaded
from srvd.worker.net.acceptor import Listening
from srvd.worker.supervision.reconnect import Home
from srvd.zygote.job import BELL, BOARD, HOLD, STACKS, LoadJob
from srvd.zygote.loading import Outcome

if TYPE_CHECKING:
    from srvd.worker.net.front import Front

__all__ = ["Loaded", "WorkerTemplate", "make_template"]


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


class Loaded(Record):
    """What a zygote knows once the application is loaded."""

    wanted: links.Load
    pool: PoolSettings
    folder: str  # of the application
    watch: Watch
    outcome: Outcome
    home: Home | None
    fronts: Sequence[Front | None]


def make_template(loaded: Loaded, job: LoadJob) -> WorkerTemplate:
    wanted, outcome = loaded.wanted, loaded.outcome
    return WorkerTemplate(
        wanted=wanted,
        preloaded=outcome.preloaded,
        board=Board.attach(job.fds[BOARD], lanes_of(loaded.pool.threads), job.fds[BELL]),
        listening=Listening(job.listeners(wanted), loaded.fronts, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)),
        pool=loaded.pool,
        stacks=job.fds[STACKS],
        has_lifeline=deadman.prepare(),  # again: an application may have had a handler of its own for the signal
        hold=job.fds[HOLD],
        home=loaded.home,
        dispositions=outcome.dispositions,
        watch=loaded.watch,
    )
