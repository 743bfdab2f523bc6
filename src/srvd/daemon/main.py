"""The daemon's process: puts the parts together, starts the first zygotes before the event loop is even imported, runs.

Decides nothing about pools (core/) and performs nothing itself (perform.py).
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from srvd import __version__
from srvd.config.settings import Config
from srvd.core.actions import Exit, Level
from srvd.core.events import Started
from srvd.core.model import Actor, Kind, Order, Revision
from srvd.core.supervisor import Supervisor
from srvd.daemon import background, sample
from srvd.daemon.answers import Answers
from srvd.daemon.background import LogFile, Pidfile, Verdict
from srvd.daemon.control import ControlServer
from srvd.daemon.dump import Dumps
from srvd.daemon.engine import Engine, spec_of
from srvd.daemon.herald import Herald
from srvd.daemon.listeners import Listeners
from srvd.daemon.overdue import OverdueWatch
from srvd.daemon.perform import Performer
from srvd.daemon.silence import SilenceWatch
from srvd.errors import EXIT, SrvdError
from srvd.linux import interpreter, systemd
from srvd.linux.process import raise_open_files
from srvd.linux.scoreboard import Board
from srvd.linux.systemd import Unit
from srvd.linux.title import set_title
from srvd.log import Log
from srvd.wire import places

SPARE_SLOTS = 64
"""Scoreboard slots beyond twice the limit: a reload doubles the workers, and leaving ones keep theirs for a while."""

FIRST = Revision(1)

_HANDLED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1,
    signal.SIGUSR2, signal.SIGRTMIN,
)  # fmt: skip


def run(config: Config, reread: Callable[[], Config], *, daemonize: bool) -> int:
    """Serves until asked to stop; the exit code of `srvd`.

    `reread` reads the same files, variables and flags anew. Raises `SystemRefused` when the system denies what the
    daemon cannot be without, and nothing was started then.
    """
    verdict = Verdict(None)
    try:
        unit = systemd.read_unit(os.environ, os.getpid())
        if daemonize:
            verdict, code = background.detach(partial(systemd.announce, unit))
            if code is not None:
                return code
            systemd.follow(os.environ, os.getpid())
        return Daemon(config, reread, verdict, unit, daemonized=daemonize).run()
    except SrvdError as exc:
        if not daemonize:
            raise
        verdict.failed(exc.exit_code, exc.message, exc.hint)
        return exc.exit_code


class Daemon:
    """Owns the parts and their order of birth and death."""

    def __init__(
        self, config: Config, reread: Callable[[], Config], verdict: Verdict, unit: Unit, *, daemonized: bool
    ) -> None:
        self._config = config
        self._verdict = verdict
        self._daemonized = daemonized
        self._log_file = LogFile(config.daemon.log_file)
        self._log_file.open()
        self._log = Log(2, config.daemon.log_format, config.daemon.log_level, shared=True)
        self._board = Board.create(2 * config.daemon.max_workers + SPARE_SLOTS)
        self._listeners = Listeners(unit)
        self._core = Supervisor(limit=config.daemon.max_workers)
        self._performer = Performer(self._board, self._listeners, emit=self._emit, woke=self._woke, line=self._captured)
        self._engine = Engine(self._core, self._performer, self._listeners, self._log)
        self._overdue = OverdueWatch(self._core.house, self._board, self._performer.workers.facts, self._emit)
        self._silence = SilenceWatch(self._core.house, self._performer.workers, self._performer.listeners, self._emit)
        self._answers = Answers(
            self._core.house,
            self._performer.workers,
            self._emit,
            lambda: self._engine.config,
            self._listeners.described,
            Dumps(self._performer.workers, self._performer.zygotes),
        )
        self._pidfile = Pidfile(config.daemon.pidfile)
        self._herald = Herald(unit, self._core.house, self._listeners.to_store, self._log.warning)
        self._exit: Exit | None = None
        self._stop_loop: Callable[[], None] | None = None
        engine = self._engine
        engine.reread = reread
        engine.headroom = lambda names: sample.headroom(self._core.house, names)
        engine.answers = self._answers
        engine.on_exit = self._leave
        engine.on_ready = self._started
        engine.reopen_log = self._reopen
        engine.on_turned = self._herald.look
        engine.on_adopted = self._adopted
        if config.daemon.log_level == "debug":
            engine.trace = _tracer(self._log)

    def run(self) -> int:
        # Held back until there is a loop to handle them: by default they would end the daemon and nothing else.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        raise_open_files()
        set_title(f"srvd: daemon {self._config.daemon.name}")
        source = f", by {self._config.path}" if self._config.path else ""
        self._log.info(f"srvd {__version__} starts, pid {os.getpid()}{source}")
        for warning in self._config.warnings:
            self._log.warning(warning)
        try:
            self._engine.adopt(FIRST, self._config)
            self._begin()
            return self._serve()
        except SrvdError as exc:
            if self._daemonized and self._config.daemon.log_file:
                self._log.error(exc.message)
            self._herald.despair(exc.message)
            raise
        finally:
            self._herald.close()
            self._performer.close()
            self._listeners.close()
            self._pidfile.remove()

    def _begin(self) -> None:
        for listener in self._listeners.described():
            self._log.info(f"listening on {listener['address']} ({listener['name']})")
        actor = Actor(os.getuid(), os.getpid(), "srvd start")
        specs = tuple(spec_of(pool) for pool in self._config.pools.values())
        self._emit(Started(FIRST, specs, actor))
        interpreter.discard()

    def _serve(self) -> int:
        # Here, not above: the first zygotes load the application while this is imported (40 ms).
        import asyncio

        from srvd.linux.prctl import become_subreaper

        become_subreaper()
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: self._bug(context))
        control = ControlServer(loop, self._answers, self._log_control, self._config.daemon.name)
        path = socket_path(self._config)
        try:
            control.open(path, self._config.daemon.roles)
            self._pidfile.write()
            self._log.info(f"control socket {path}")
            self._engine.control = control
            self._stop_loop = loop.stop
            self._performer.attach(loop)
            self._engine.attach(loop)
            self._overdue.attach(loop)
            self._herald.attach(loop)
            self._silence.attach(loop)
            self._handle_signals(loop)
            if self._exit is None:
                loop.run_forever()
        finally:
            self._silence.close()
            kept = control.close("the daemon has stopped")
            loop.close()
        del kept  # left open on purpose: their end of file is the process's end, for whoever waits for the stop
        assert self._exit is not None
        if self._exit.code == EXIT.DONE:
            self._log.info("stopped")
            self._verdict.failed(EXIT.FAILED, "the daemon was asked to stop before it was ready")
        else:
            if not self._daemonized or self._config.daemon.log_file:  # else the verdict says it in the same place
                self._log.error(f"never came up: {self._exit.text}")
            self._verdict.failed(self._exit.code, self._exit.text)
        return self._exit.code

    # -- what the parts call ---------------------------------------------------------------------------------------

    def _emit(self, event: Any) -> None:
        self._engine.emit(event)

    def _captured(self, source: object, line: str) -> None:
        self._log.captured(str(source), line)

    def _woke(self) -> None:
        self._overdue.woke()

    def _adopted(self) -> None:
        """Another configuration is in force: its limits, its listeners."""
        self._overdue.look()
        self._silence.renew()

    def _log_control(self, level: Level, text: str, fields: Mapping[str, object]) -> None:
        self._log.write(level.value, text, tuple((name, str(value)) for name, value in fields.items()))

    def _bug(self, context: Mapping[str, Any]) -> None:
        # Not the loop's own way: `logging` would write unescaped lines, and wait for whoever does not read them.
        problem = context.get("exception")
        proof = "".join(traceback.format_exception(problem)) if problem is not None else ""
        self._log.error(f"a bug in srvd: {context.get('message')}\n{proof}".rstrip())

    def _leave(self, action: Exit) -> None:
        if self._exit is None:
            self._exit = action
            if self._stop_loop is not None:
                self._stop_loop()

    def _started(self) -> None:
        """The start has ended, well or not."""
        start = self._answers.operation(1)
        if start["state"] != "done" and (self._core.house.doomed or self._core.house.stop) is not None:
            return  # the daemon leaves, and says why when it has
        if self._daemonized:
            background.leave_terminal()
            self._log.renew()  # it would hold on to what was left
        if start["state"] == "done":
            self._verdict.ready()
        else:
            self._verdict.failed(EXIT.CHANGED, f"{start['error']['message']}; the daemon runs on", "srvctl why")

    # -- signals ---------------------------------------------------------------------------------------------------

    def _handle_signals(self, loop: Any) -> None:
        """The signals that init scripts know, as the orders they stand for."""
        orders: Mapping[signal.Signals, tuple[Order, ...]] = {
            signal.SIGTERM: (Order(Kind.STOP),),
            signal.SIGINT: (Order(Kind.STOP),),
            signal.SIGQUIT: (Order(Kind.STOP, now=True),),
            signal.SIGHUP: (Order(Kind.RELOAD),),
            signal.SIGUSR1: (Order(Kind.REOPEN),),
        }
        for number, wanted in orders.items():
            loop.add_signal_handler(number, self._signalled, number, wanted)
        loop.add_signal_handler(signal.SIGTTIN, self._signalled_scale, signal.SIGTTIN, +1)
        loop.add_signal_handler(signal.SIGTTOU, self._signalled_scale, signal.SIGTTOU, -1)
        loop.add_signal_handler(signal.SIGUSR2, self._upgrade)
        loop.add_signal_handler(signal.SIGRTMIN, self._signalled_restart)
        loop.add_signal_handler(signal.SIGCHLD, self._performer.reap_strangers)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        self._performer.reap_strangers()  # whose SIGCHLD came before there was a handler

    def _signalled(self, number: signal.Signals, orders: tuple[Order, ...]) -> None:
        for order in orders:
            try:
                self._answers.submit(order, Actor(os.getuid(), 0, f"signal {number.name}"))
            except SrvdError as exc:
                self._log.error(f"{number.name}: {exc.message}")

    def _signalled_scale(self, number: signal.Signals, delta: int) -> None:
        pools = list(self._core.house.pools)
        self._signalled(number, tuple(Order(Kind.SCALE, name, delta, relative=True) for name in pools))

    def _signalled_restart(self) -> None:
        """A stop after which the next daemon comes at once: what systemd keeps for it stays open to clients."""
        self._listeners.hand_over(self._herald.kept)
        self._signalled(signal.Signals.SIGRTMIN, (Order(Kind.STOP),))

    def _reopen(self) -> str:
        """Why the log could not be opened anew; "" if it was."""
        try:
            self._log_file.open()
        except SrvdError as exc:
            return exc.message
        self._log.renew()  # what was a file may be a pipe now, on which a write could wait
        return ""

    def _upgrade(self) -> None:
        self._log.warning("SIGUSR2: unsupported: this version cannot upgrade in place")


def socket_path(config: Config) -> str:
    """Where the control socket of this instance is."""
    return config.daemon.socket or places.socket_path(config.daemon.name, places.rundir(os.geteuid(), os.environ))


def _tracer(log: Log) -> Callable[[str, object], None]:
    # Only with log_level = "debug": it costs 5 ms of import time and a line an event.
    from srvd.core.script import spell

    return lambda way, what: log.debug(f"{way} {spell(what)}")


if __name__ == "__main__":
    sys.exit("start the daemon with: srvd start")
