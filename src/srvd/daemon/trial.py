"""Loads each application once in a zygote that is thrown away: what `srvd check` does.

Opens no port, forks no worker, and touches no running daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from srvd.config.settings import PoolSettings
from srvd.core.events import Event, ZygoteFailed, ZygoteGone, ZygoteLoaded
from srvd.core.model import GenerationId
from srvd.daemon.loop import Loop
from srvd.daemon.voice import Voice
from srvd.daemon.workers import Workers
from srvd.daemon.zygotes import Zygotes
from srvd.errors import LoadFailed
from srvd.linux.scoreboard import Board
from srvd.record import Record

__all__ = ["Loaded", "try_load"]

FAREWELL = 5.0
"""Seconds that a zygote has to end, once it was told to or killed."""


class Loaded(Record):
    seconds: float
    notes: tuple[str, ...]  # what it left behind that would not survive a fork


def try_load(pool: PoolSettings, line: Callable[[str], None]) -> Loaded:
    """Load the pool's application, also if `preload` is off; `line` gets each line it writes to stderr.

    Raises `LoadFailed` with the traceback in its detail, also when `boot_timeout` has passed.
    """
    loop = Loop()
    board = Board.create(1)
    try:
        trial = _Trial(pool, loop, board, line)
        try:
            return trial.run()
        finally:
            trial.end()
    finally:
        board.close()
        loop.close()


class _Trial:
    """One zygote from its start to its end."""

    def __init__(self, pool: PoolSettings, loop: Loop, board: Board, line: Callable[[str], None]) -> None:
        voice = Voice(loop, self._take, woke=lambda: None, line=lambda _, text: line(text))
        self._pool = pool._replace(preload="on") if pool.preload == "off" else pool
        self._loop = loop
        self._answer: ZygoteLoaded | LoadFailed | None = None
        self._gone = False
        self._zygotes = Zygotes(voice, board, Workers(voice, board))
        self._id = GenerationId(pool.name, 1)

    def run(self) -> Loaded:
        began = time.monotonic()
        self._zygotes.start(self._id, self._pool, ())
        timer = self._loop.call_later(self._pool.boot_timeout, self._overdue)
        try:
            while self._answer is None:
                self._loop.run()
        finally:
            timer.cancel()
        if isinstance(self._answer, LoadFailed):
            raise self._answer
        return Loaded(time.monotonic() - began, self._answer.notes)

    def end(self) -> None:
        """Returns when the process is gone: by its end of the link, or killed."""
        self._zygotes.stop(self._id)
        timer = self._loop.call_later(FAREWELL, self._give_up)
        while not self._gone:
            self._loop.run()
        timer.cancel()
        self._zygotes.close(dismiss=True)

    def _take(self, event: Event) -> None:
        match event:
            case ZygoteLoaded():
                self._conclude(event)
            case ZygoteFailed(_, fault):
                detail = {"step": "load", "traceback": fault.traceback}
                self._conclude(LoadFailed(fault.message, hint=fault.hint, detail=detail))
            case ZygoteGone():
                self._gone = True
                self._conclude(self._too_late())  # if nothing else: it was overdue, and its stacks are written by now

    def _conclude(self, answer: ZygoteLoaded | LoadFailed) -> None:
        if self._answer is None:
            self._answer = answer
        self._loop.stop()

    def _overdue(self) -> None:
        self._zygotes.kill(self._id, dump=True)

    def _too_late(self) -> LoadFailed:
        return LoadFailed(
            f"load {self._pool.app}: not done after {self._pool.boot_timeout:g} s (boot_timeout); it was ended",
            hint="the stacks above say where it is stuck; or give it more time",
        )

    def _give_up(self) -> None:
        self._zygotes.kill(self._id, dump=False)
