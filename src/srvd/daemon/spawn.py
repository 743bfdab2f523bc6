"""Starts a zygote: an interpreter of the pool's choice, with a link and a pipe for its stderr and nothing else of ours.

Knows no events; what becomes of the process is `zygotes.py`'s. Uses posix_spawn: `subprocess` takes 10 ms to import.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from srvd.config import settings
from srvd.config.settings import PoolSettings
from srvd.core.model import GenerationId
from srvd.daemon.output import Output
from srvd.daemon.process import Process
from srvd.linux import fds, process
from srvd.linux.scoreboard import Board
from srvd.linux.sockets import describe
from srvd.wire import family

__all__ = ["interpreter", "start_zygote"]

_LINK = 3  # the number of the link in the zygote

# Not `-m srvd.zygote`: that imports `runpy` first (4 ms), and makes the zygote the application's `__main__`, which
# multiprocessing would import anew in each process that it spawns. -P: no module of the working directory may pass
# for one that the zygote is made of.
_COMMAND = "from srvd.zygote.start import main; main()"

_NOT_FOR_APPLICATIONS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
"""What systemd told the daemon, and an application would take for its own."""

_FAMILIES = {socket.AF_INET: "inet", socket.AF_INET6: "inet6", socket.AF_UNIX: "unix"}

Named = Sequence[tuple[str, socket.socket]]


def interpreter(pool: PoolSettings) -> str:
    """The interpreter that runs the pool's application: a path, or a name on PATH."""
    return pool.python or sys.executable


def start_zygote(
    generation: GenerationId, pool: PoolSettings, board: Board, listeners: Named, line: Callable[[str], None]
) -> Process:
    """Start it and tell it what to load. Raises `OSError`: no such interpreter, no process or descriptor to be had."""
    ours, theirs = fds.link_pair()
    try:
        read, write = os.pipe()
        try:
            pid = _spawn(interpreter(pool), _environment(pool.env), theirs.fileno(), write)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        child = Process(pid, process.open_pidfd(pid), ours, Output(read, line))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    try:
        # A link that nothing was sent on yet has room: LIMIT is less than half of the smallest default buffer.
        fds.send(ours, _load(generation, pool, listeners), [board.fd, *(sock.fileno() for _, sock in listeners)])
    except BrokenPipeError:
        return child  # it is over already; its end will be told like any other
    except BaseException:
        process.send_signal(child.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
        child.close()
        raise
    return child


def _spawn(program: str, environment: Mapping[str, str], link: int, stderr: int) -> int:
    return os.posix_spawnp(
        program,
        [program, "-P", "-c", _COMMAND, str(_LINK)],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
            (os.POSIX_SPAWN_DUP2, link, _LINK),  # last: the others may have had this number
        ],
        # A session of its own: what a terminal sends to the daemon's group is for the daemon to pass on.
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD],
    )


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _NOT_FOR_APPLICATIONS} | dict(extra)


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
