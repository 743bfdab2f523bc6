"""Runs a worker from the fork to the exit: loads the application, reports READY, serves, reports BYE.

Forks nothing and sets up no process: the zygote has set user, group, stderr and title.
"""

from __future__ import annotations

import faulthandler
import socket
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, NamedTuple, cast

from srvd.config.settings import PoolSettings
from srvd.errors import LoadFailed
from srvd.ids import WorkerId
from srvd.linux import fds
from srvd.linux.scoreboard import Board
from srvd.log import Log
from srvd.wire import links
from srvd.worker import forked, warming
from srvd.worker.app import hooks
from srvd.worker.app.hooks import Hooks
from srvd.worker.app.loader import Application
from srvd.worker.app.releases import Watch
from srvd.worker.commands import Commands, Patience
from srvd.worker.context import WorkerContext
from srvd.worker.deadman import Lifeline
from srvd.worker.link import Link
from srvd.worker.loop import Loop
from srvd.worker.net.acceptor import Acceptor
from srvd.worker.net.connection import Connection
from srvd.worker.observe.access_buffer import AccessBuffer
from srvd.worker.observe.access_log import AccessLog
from srvd.worker.observe.completion import Completion
from srvd.worker.observe.recorder import Recorder
from srvd.worker.reconnect import Home
from srvd.worker.recycling import Recycling
from srvd.worker.tracebacks import format_traceback
from srvd.worker.wsgi.environ import LOG_NAMES, EnvironSink
from srvd.worker.wsgi.exchange import Exchange
from srvd.worker.wsgi.scheduler import Threads
from srvd.worker.wsgi.threaded import ThreadedConnection, ThreadedContext, ThreadedLoop

if TYPE_CHECKING:
    from srvd.worker.net.front import Front

__all__ = ["Boot", "serve"]

_STDERR = 2


class Boot(NamedTuple):
    """Everything that the zygote gives to a new worker. The worker owns the descriptors."""

    pool: str
    generation: int
    serial: int
    slot: int  # on the scoreboard
    link: socket.socket  # SOCK_SEQPACKET, blocking
    listeners: list[socket.socket]
    board: Board
    app: object | None  # None: not preloaded; `load` loads it
    load: Callable[[], object]
    settings: PoolSettings
    hooks: Hooks | None = None  # None: not preloaded, as `app`
    fronts: Sequence[Front | None] = ()  # one for each listener, None for plain HTTP; empty: plain HTTP for all
    nudge: int = -1  # the eventfd that all workers of the generation share; -1: none
    home: Home | None = None  # None: the worker leaves when its link ends
    lines: AccessBuffer | None = None  # of the access log, shared with the zygote; None: the worker makes its own
    lifeline: int = -1  # reads an end of file once no process is left that could end this worker; -1: none
    warms: bool = False  # requests paths before READY, to import what other workers inherit from their zygote
    watch: Watch | None = None

    @property
    def id(self) -> WorkerId:
        return WorkerId(self.pool, self.generation, self.serial)

    @property
    def worker(self) -> str:
        return str(self.id)

    @property
    def descriptors(self) -> Iterable[int]:
        """Yields the descriptors that no child process of the application may keep open."""
        sockets = (sock.fileno() for sock in (self.link, *self.listeners))
        home = () if self.home is None else (self.home.lock, self.home.bell, self.home.stderr, self.home.stacks)
        return (*sockets, *home, self.board.fd, self.nudge, self.lifeline)


def serve(boot: Boot) -> int:
    """Serves until the daemon tells the worker to leave, and returns the exit code. Does not raise: reports failures
    to the daemon.
    """
    faulthandler.enable(_STDERR)
    log = Log(_STDERR)
    link = Link(boot.link)
    # Until READY the worker runs foreign code that may never return, so the link is not read. Without this, the worker
    # would never end if the daemon died, or if the zygote ended before it reported this fork.
    fds.kill_at_end(boot.link)
    if boot.watch is not None:
        boot.watch.tell_to(lambda file: link.say(links.Mixed(file)))
    try:
        with forked.guarded(lambda: boot.descriptors):
            if boot.hooks is not None:
                hooks.call(boot.hooks.on_fork, "on_fork", log, boot.worker)
            app = boot.load() if boot.app is None else boot.app
            hooked, warnings = (boot.hooks, []) if boot.hooks is not None else hooks.load(boot.settings.hooks)
    except LoadFailed as failed:
        fds.kill_at_end(boot.link, on=False)
        # The message stands in the last line, because reports quote the last line only.
        plain = f"hint: {failed.hint}\n{failed.message}" if failed.hint else failed.message
        text = str(failed.detail.get("traceback", plain))
        link.say(links.Failed(links.clip(failed.message), links.clip(text)), wait=True)
        return 1
    for warning in warnings:
        log.warning(warning)
    return _run(boot, cast(Application, app), hooked, link, log)


def _run(boot: Boot, app: Application, hooked: Hooks, link: Link, log: Log) -> int:
    settings, name = boot.settings, boot.worker
    loop = ThreadedLoop() if settings.threads > 1 else Loop()
    recycling = Recycling(settings, loop, lambda reason: link.say(links.Expired(reason)))
    access = None
    if settings.access_log:
        access = AccessLog(
            settings.access_log, settings.access_log_format, loop, log, boot.lines or AccessBuffer(), LOG_NAMES,
            lambda problem: link.say(links.Reopened(problem)),
        )  # fmt: skip
    completion = Completion.needed(access, hooked.after_request, recycling, log)
    recorder = Recorder(boot.board.lane(boot.slot), link.ring, completion)
    app = hooks.with_before_request(app, hooked.before_request, log)
    sink = EnvironSink(name, multithread=settings.threads > 1)
    if isinstance(loop, ThreadedLoop):
        recorders = [
            Recorder(boot.board.lane(boot.slot, 1 + thread), link.ring, completion)
            for thread in range(settings.threads)
        ]
        shared = ThreadedContext(app, settings, loop, recorder, log, sink, recorders)
        context: WorkerContext = shared
        connection: type[Connection] = ThreadedConnection
        run = Threads(shared, name).run
    else:
        context = WorkerContext(app, settings, loop, recorder, log, sink)
        context.connection = connection = Connection
        run = loop.run
    context.responder = Exchange
    context.access, context.recycling = access, recycling
    if boot.lifeline >= 0:
        context.lifeline = Lifeline(loop, boot.lifeline)
    acceptor = Acceptor(context, boot.listeners, settings.max_connections, boot.fronts, boot.nudge)
    patience = Patience(settings.drain_timeout, settings.orphan_timeout)
    commands = Commands(context, acceptor, link, boot.id, patience, boot.home)
    kinds = (Exchange, connection, type(loop), Recorder, Link, AccessLog)
    forked.disown(lambda: (*boot.descriptors, *loop.descriptors()), kinds)
    hooks.call(hooked.on_worker_start, "on_worker_start", log, name)
    context.variables = copy_context()
    if boot.warms:
        warming.ask(context, [*settings.warm, *([settings.health] if settings.health else [])])
    fds.kill_at_end(boot.link, on=False)
    link.say(links.Ready(), wait=True)
    try:
        run()
    except BaseException as exc:  # the process ends here
        log.error(f"a bug in the worker's loop; it ends\n{format_traceback(exc)}")
        return 70
    hooks.call(hooked.on_worker_stop, "on_worker_stop", log, name)
    if access is not None:
        access.close()
    link.say(links.Bye(), wait=True)
    return commands.code
