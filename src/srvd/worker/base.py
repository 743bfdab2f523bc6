"""The life of a worker's process: load, ready, serve, bye. Begins after the fork, ends before the exit.

Forks nothing and sets up no process: user, group, stderr and title are the zygote's work.
"""

from __future__ import annotations

import faulthandler
import socket
from collections.abc import Callable
from typing import NamedTuple, cast

from srvd.config.settings import PoolSettings
from srvd.errors import LoadFailed
from srvd.linux.process import DUMP_SIGNAL
from srvd.linux.scoreboard import Board
from srvd.log import Log
from srvd.wire import family
from srvd.worker.gate import Gate
from srvd.worker.loop import Loop
from srvd.worker.meter import Meter
from srvd.worker.orders import Link, Orders
from srvd.worker.service import Application, Service
from srvd.worker.tracebacks import format_traceback

__all__ = ["Boot", "serve"]

_STDERR = 2


class Boot(NamedTuple):
    """Everything that a new worker is given; the descriptors are its own from now on."""

    pool: str
    generation: int
    serial: int
    slot: int  # on the scoreboard
    link: socket.socket  # SOCK_SEQPACKET, blocking
    listeners: list[socket.socket]
    board: Board
    app: object | None  # None: not preloaded, `load` it
    load: Callable[[], object]
    settings: PoolSettings


def serve(boot: Boot) -> int:
    """Serve until told to leave; the exit code. Does not raise: what goes wrong is told to the daemon."""
    faulthandler.enable(_STDERR)
    faulthandler.register(DUMP_SIGNAL, _STDERR, all_threads=True, chain=False)
    log = Log(_STDERR)
    link = Link(boot.link)
    try:
        app = boot.load() if boot.app is None else boot.app
    except LoadFailed as failed:
        text = str(failed.detail.get("traceback", failed.hint))
        link.say(family.Failed(failed.message, family.clip(text)), wait=True)
        return 1
    return _run(boot, cast(Application, app), link, log)


def _run(boot: Boot, app: Application, link: Link, log: Log) -> int:
    name = f"{boot.pool}/{boot.generation}#{boot.serial}"
    loop = Loop()
    meter = Meter(boot.board.lane(boot.slot), link.ring)
    service = Service(app, boot.settings, loop, meter, log)
    gate = Gate(service, boot.listeners, name, boot.settings.max_connections)
    Orders(service, gate, link, name, boot.settings.drain_timeout)
    link.say(family.Ready(), wait=True)
    try:
        loop.run()
    except BaseException as exc:  # the process ends here
        log.error(f"a bug in the worker's loop; it ends\n{format_traceback(exc)}")
        return 70
    link.say(family.Bye(), wait=True)
    return 0
