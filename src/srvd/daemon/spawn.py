"""Starts a zygote: an interpreter of the pool's choice that is told what to load, with everything that it needs for it.

Knows no events; what becomes of the process is `zygotes.py`'s.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from srvd.config import settings
from srvd.config.settings import PoolSettings
from srvd.core.model import GenerationId
from srvd.daemon.output import Output
from srvd.daemon.process import Process
from srvd.linux import fds, process
from srvd.linux.interpreter import take
from srvd.linux.scoreboard import Board
from srvd.linux.sockets import describe
from srvd.wire import family

__all__ = ["interpreter", "start_zygote"]

_FAMILIES = {socket.AF_INET: "inet", socket.AF_INET6: "inet6", socket.AF_UNIX: "unix"}

Named = Sequence[tuple[str, socket.socket]]


def interpreter(pool: PoolSettings) -> str:
    """The interpreter that runs the pool's application: a path, or a name on PATH."""
    return pool.python or sys.executable


def start_zygote(
    generation: GenerationId, pool: PoolSettings, board: Board, listeners: Named, line: Callable[[str], None]
) -> Process:
    """Start it and tell it what to load. Raises `OSError`: no such interpreter, no process or descriptor to be had."""
    started = take(interpreter(pool), pool.env)
    child = Process(started.pid, started.pidfd, started.link, Output(started.stderr, line))
    try:
        # A link that nothing was sent on yet has room: LIMIT is less than half of the smallest default buffer.
        fds.send(
            started.link, _load(generation, pool, listeners), [board.fd, *(sock.fileno() for _, sock in listeners)]
        )
    except BrokenPipeError:
        return child  # it is over already; its end will be told like any other
    except BaseException:
        process.send_signal(child.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        child.close()
        raise
    return child


def _load(generation: GenerationId, pool: PoolSettings, listeners: Named) -> bytes:
    return family.encode(
        family.Load(
            pool=generation.pool,
            generation=generation.number,
            app=pool.app,
            preload=pool.preload,
            chdir=pool.chdir,
            pythonpath=list(pool.pythonpath),
            umask=int(pool.umask, 8) if pool.umask else -1,
            user=pool.user,
            group=pool.group,
            listeners=[
                {"name": name, "address": describe(sock), "family": _FAMILIES[socket.AddressFamily(sock.family)]}
                for name, sock in listeners
            ],
            settings=settings.pack(pool),
        )
    )
