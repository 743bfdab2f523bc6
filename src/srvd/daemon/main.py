"""The daemon's process: puts the parts together, starts the first zygotes before anything else, runs.

Decides nothing about pools (core/) and performs nothing itself (children/).
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from srvd import __version__
from srvd.config.pool_spec import spec_of
from srvd.config.settings import Config, DaemonSettings
from srvd.config.source import Source
from srvd.core.actions import Exit
from srvd.core.events import Event, ProgramReplaced, Started
from srvd.core.model import Actor, Fault, Kind, Level, OpId, OpState, Order, Revision
from srvd.core.supervisor import Supervisor
from srvd.daemon import detach, handover
from srvd.daemon.children.commons import Commons
from srvd.daemon.children.dump import Dumps
from srvd.daemon.children.performer import Performer
from srvd.daemon.components import Parts
from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.peers import Roles
from srvd.daemon.control.server import ControlServer
from srvd.daemon.detach import StartReport
from srvd.daemon.dispatcher import Dispatcher, tracer
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.files import LogFile, Pidfile
from srvd.daemon.handover import Handover
from srvd.daemon.listeners import Listeners
from srvd.daemon.loop import Loop
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.preconditions import Preconditions, beside
from srvd.daemon.renewal import Renewal
from srvd.daemon.signals import Signals, hold
from srvd.daemon.systemd_notifier import SystemdNotifier
from srvd.daemon.upgrade.program import this_program
from srvd.daemon.upgrade.source_archive import SourceArchive, is_keepsake
from srvd.daemon.watch import headroom
from srvd.daemon.watch.liveness import LivenessMonitor
from srvd.daemon.watch.memory_limit import MemoryLimitMonitor
from srvd.daemon.watch.request_timeout import RequestTimeoutMonitor
from srvd.errors import EXIT, SrvdError
from srvd.linux import interpreter
from srvd.linux.processes.proctitle import set_title
from srvd.log import Log
from srvd.wire import links
from srvd.wire.paths import family_path, state_path

if TYPE_CHECKING:
    from srvd.daemon.recovery.adopt import Adoption
    from srvd.daemon.recovery.recover import Found

FIRST = Revision(1)
KEEP_AFTER = 2.0
"""Seconds until the daemon's own source is kept: it takes milliseconds, and a start counts them."""


class Daemon:
    """Owns the parts and their order of birth and death."""

    def __init__(
        self, settings: DaemonSettings, source: Source, parts: Parts, verdict: StartReport, *, daemonized: bool
    ) -> None:
        self._settings = settings
        self._source = source
        self._verdict = verdict
        self._daemonized = daemonized
        self._log_file = LogFile(settings.log_file)
        self._log = parts.log
        self._parts = parts
        self._core = parts.core
        self.keepsake = parts.keepsake
        house, commons, listeners = parts.core.house, parts.commons, parts.listeners
        self._loop = Loop(self._bug)
        line = self._log.captured
        self.performer = Performer(self._loop, commons, listeners, self.emit, self._woke, line, parts.bond)
        self.engine = Dispatcher(self._core, self.performer, listeners, self._log)
        workers = self.performer.workers
        self.overdue = RequestTimeoutMonitor(house, commons.bell, workers.facts, workers.state, self.emit)
        self._growth = MemoryLimitMonitor(house, workers.rss, self.emit)
        dumps = Dumps(workers, self.performer.zygotes)
        self._answers = DaemonBackend(house, workers, self.emit, self.engine, listeners.described, dumps)
        self._renewal = Renewal(parts.bond, listeners, self._answers.submit, self._log)
        self._silence = LivenessMonitor(house, workers, self.performer.listeners, self.emit, self._renewal.mend)
        self._pidfile = Pidfile(settings.pidfile)
        self._herald = SystemdNotifier(parts.unit, house, parts.to_store, self._log.warning)
        self._born = time.time()
        self._exit: Exit | None = None
        self._control: ControlServer
        self._upgrade: Any = None  # imported when the zygotes load
        self._heritage: Any = None  # as well
        self._in_order = True  # it ends so, and leaves nobody behind
        engine = self.engine
        engine.reread = partial(self._renewal.before, source.read)
        engine.headroom = lambda names: headroom.headroom(house, names)
        engine.answers = self._answers
        engine.on_exit = self._leave
        engine.on_ready = self._started
        engine.reopen_log = self._reopen
        engine.on_turned = self._herald.look
        engine.on_change = lambda: self._heritage and self._heritage.touch()
        engine.persist = lambda: self._heritage and self._heritage.save()
        engine.on_adopted = self._adopted
        if settings.log_level == "debug":
            engine.trace = tracer(self._log)

    def run(self, config: Config, ground: Preconditions, found: Found | None = None) -> int:
        """From a start to the end; the exit code."""
        hold()
        set_title(f"srvd: daemon {self._settings.name}")
        self._log.info(f"srvd {__version__} starts, pid {os.getpid()}" + (f", by {config.path}" if config.path else ""))
        for warning in config.warnings:
            self._log.warning(warning)
        try:
            if found is None or found.adoption is None:
                self.engine.adopt(FIRST, config)
                self._begin(config)
            else:
                self._in_order = False  # until it has begun: its workers are better off with another daemon
                self._succeed(found.adoption, config)
            interpreter.discard()
            return self._serve(ground, found)
        except SrvdError as exc:
            if self._daemonized and self._settings.log_file:
                self._log.error(exc.message)
            self._herald.despair(exc.message)
            raise
        except Exception:
            self._in_order = False
            raise
        finally:
            self._let_go()

    def _begin(self, config: Config) -> None:
        for line in self._parts.listeners.announced():
            self._log.info(line)
        actor = Actor(os.getuid(), os.getpid(), "srvd start")
        self.emit(Started(FIRST, tuple(map(spec_of, config.pools.values())), actor))

    def _succeed(self, adoption: Adoption, config: Config) -> None:
        """Go on with the family of a daemon that died; reload if it had another configuration."""
        from srvd.daemon.recovery import recover  # as in start.py

        self._log.warning("the daemon before this one has died; its zygotes, workers and listeners are adopted")
        if recover.go_on(self, adoption, config):
            self._answers.submit(Order(Kind.RELOAD), Actor(os.getuid(), os.getpid(), "srvd start"))
        self._renewal.reopen()

    def _serve(self, ground: Preconditions, found: Found | None) -> int:
        self._complete()
        try:
            self._control.serve(ground.claim, ground.roles)
            self._pidfile.write()
            self._log.info(ground.claim.description)
            if not ground.roles.of(os.geteuid(), []):
                self._log.warning(f"uid {os.geteuid()} is nobody's in this user namespace: only root can use srvctl")
            self._attach()
            if found is not None:
                self._heritage.hear(found, self.performer, self._core.house, self._loop)
            self._handle_signals()
            self._in_order = True
            if found is not None and found.adoption is not None:
                self._ready()
        except BaseException:
            self._close_control()
            raise
        return self._turn()

    def _complete(self) -> None:
        # Here, not above: the first zygotes load the application while this is imported. Not later either: what is on
        # disk when an upgrade is asked for is another version of it.
        from srvd.daemon.recovery.saver import StateSaver
        from srvd.daemon.upgrade.replace import Upgrade
        from srvd.linux.processes.prctl import become_subreaper

        become_subreaper()
        self._control = ControlServer(self._loop, self._answers, self._log_control, self._settings.name)
        self._renewal.control = self._control
        self._upgrade = Upgrade(self._loop, self, self._parts.program)
        self._heritage = StateSaver(self, self._parts, beside(self._settings, state_path), self._log.warning)
        self.engine.check_program = self._upgrade.check
        self.engine.replace_program = self._upgrade.replace

    def _attach(self) -> None:
        """From here on readers and timers live."""
        self.engine.control = self._control
        self.engine.attach(self._loop)
        self.overdue.attach(self._loop)
        self._herald.attach(self._loop)
        self._silence.attach(self._loop)
        self._growth.attach(self._loop)
        self._heritage.attach(self._loop)

    def _turn(self) -> int:
        """To the end; the exit code."""
        if not is_keepsake(self._parts.program.folder):  # else this is the former program, and it is all there is of it
            self.keepsake.empty()
            self._loop.call_later(KEEP_AFTER, self.keepsake.fill, self._parts.program.folder, self._born)
        try:
            self._loop.run()
        except BaseException:
            self._in_order = False
            raise
        finally:  # left open on purpose: their end of file is the process's end, for whoever waits for the stop
            _kept = self._close_control()
        assert self._exit is not None
        self.performer.leftovers.end(self._log.info)
        if self._exit.code == EXIT.DONE:
            self._log.info("stopped")
            self._verdict.failed(EXIT.FAILED, "the daemon was asked to stop before it was ready")
        else:
            if not self._daemonized or self._settings.log_file:  # else the verdict says it in the same place
                self._log.error(f"never came up: {self._exit.text}")
            self._verdict.failed(self._exit.code, self._exit.text)
        return self._exit.code

    def _close_control(self) -> list[int]:
        self._silence.close()
        self._upgrade.close()
        self._heritage.close(remove=self._in_order)  # before the path is given up: it is beside it
        return self._control.close("the daemon has stopped")

    def _let_go(self) -> None:
        self._herald.close()
        self.performer.close(dismiss=self._in_order)
        self._parts.commons.close()
        (self._parts.listeners.close if self._in_order else self._parts.listeners.abandon)()
        self._pidfile.remove()
        self._loop.close()

    # -- from one program to the next ------------------------------------------------------------------------------

    def state(self, kept: FdTable) -> bytes:
        """All that the next program needs to be this daemon; the descriptors go to `kept`."""
        return handover.pack(self.handover(kept))

    def handover(self, kept: FdTable) -> Handover:
        """The same, before it is bytes."""
        kept.give("keepsake", self.keepsake.fd)
        self._parts.deposit.carry(kept)
        shell = handover.Shell(
            version=__version__,
            protocol=links.PROTOCOL,
            program=self._parts.program,
            source=self._source.save(),
            daemonized=self._daemonized,
            began=self._answers.began,
            configs=dict(self.engine.configs),
            current=self.engine.current,
            listening=self._parts.listeners.carry(kept),
            family=self.performer.save(kept),
            overdue=self.overdue.carry(),
            control=self._control.save(kept),
            unit=self._parts.unit,
            stored=tuple(self._herald.kept),
            bond=self._parts.bond.carry(kept),
            strays=self._heritage.carry(kept),
        )
        return Handover(self._core.house, shell)

    @classmethod
    def resumed(cls, found: Handover, kept: FdTable) -> Daemon:
        """The daemon of a state and its descriptors, before it does anything. Raises `Unsupported`, `OSError`."""
        house, shell = found
        settings = shell.configs[shell.current].daemon
        parts = Parts(
            Commons.taken(kept, settings.max_workers),
            Listeners.resume(shell.listening, kept),
            Supervisor(house=house),
            this_program(shell.program.command),
            shell.unit,
            SourceArchive(kept.find("keepsake")),
            FamilyLock.resume(shell.bond, kept, beside(settings, family_path)),
            StoreCopy.resume(shell.bond.rendezvous, shell.unit, kept),
            Log(2, settings.log_format, settings.log_level, shared=True),
        )
        daemon = cls(settings, Source.restore(shell.source), parts, StartReport(None), daemonized=shell.daemonized)
        daemon._answers.began = shell.began
        daemon.overdue.resume(shell.overdue)
        daemon._herald.resume(shell.stored)
        daemon.engine.resume(shell.configs, shell.current)
        daemon.performer.restore(shell.family, kept)
        daemon._complete()
        daemon._heritage.resume(shell.strays, shell.configs.values(), kept, daemon.performer, house, daemon._loop)
        daemon._control.restore(shell.control, daemon._roles(), kept)
        return daemon

    def _roles(self) -> Roles:
        try:
            return Roles.resolve(self._settings.roles, os.geteuid())
        except SrvdError as exc:  # a user that is no more: no reason to be no daemon
            self._log.error(f"{exc.message}; only root and the daemon's user have a role")
            return Roles.resolve({}, os.geteuid())

    def take_over(self) -> None:
        """Everything but what cannot be undone: nobody outside has noticed anything when this returns, or raises."""
        hold()
        set_title(f"srvd: daemon {self._settings.name}")
        self._attach()

    def go_on(self, former: str, fault: Fault | None) -> int:
        """Be the daemon, up to the end; the exit code. `fault`: why it is not the new program that does."""
        self._log.info(f"srvd {__version__} goes on as the daemon that srvd {former} was, pid {os.getpid()}")
        self._in_order = False  # until it has begun
        try:
            for op in self._core.house.open_operations:
                if op.order.kind is Kind.UPGRADE and op.state is OpState.COMMITTING:
                    self.emit(ProgramReplaced(op.id, fault))
            self._renewal.look_over()
            self._handle_signals()
            self._in_order = True
            return self._turn()
        finally:
            self._let_go()

    def farewell(self, reason: str, message: str) -> None:
        """Say `bye` to every connection of the control socket."""
        self._control.dismiss(reason, message)

    def beat(self) -> int:
        """Tell a watchdog that all is well; the seconds for which the daemon may be still now, 0: for ever."""
        return self._herald.beat()

    def is_under_way(self, op: OpId) -> bool:
        found = self._core.operation(op)
        return found is not None and not found.state.ended and self._core.house.stop is None

    # -- what the parts call ---------------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        self.engine.emit(event)

    def _woke(self) -> None:
        self.overdue.woke()

    def _adopted(self) -> None:
        """Another configuration is in force: its limits, its listeners."""
        self.overdue.look()
        self._silence.renew()
        self._growth.renew()

    def _log_control(self, level: Level, text: str, fields: Mapping[str, object]) -> None:
        self._log.write(level.value, text, tuple((name, str(value)) for name, value in fields.items()))

    def _bug(self, problem: Exception) -> None:
        self._log.error(f"a bug in srvd: {problem!r}\n{''.join(traceback.format_exception(problem))}".rstrip())

    def _leave(self, action: Exit) -> None:
        if self._exit is None:
            self._exit = action
            self._loop.stop()

    def _started(self) -> None:
        """The start has ended, well or not."""
        start = self._answers.operation(1)
        failed = start["state"] != "done"
        if failed and (self._core.house.doomed or self._core.house.stop) is not None:
            return  # the daemon leaves, and says why when it has
        self._ready(f"{start['error']['message']}; the daemon runs on" if failed else "")

    def _ready(self, problem: str = "") -> None:
        """Whoever waits for the start is told."""
        if self._daemonized:
            detach.leave_terminal()
            self._log.renew()  # it would hold on to what was left
        if problem:
            return self._verdict.failed(EXIT.CHANGED, problem, "srvctl why")
        urls = self._parts.listeners.urls(self.engine.config.tls)
        detach.say_where(self._log, urls)
        return self._verdict.ready(detach.greeting(self._settings, urls))

    def _handle_signals(self) -> None:
        Signals(self._core.house, self._answers, self._log).attach(
            self._loop, self.performer.reap_strangers, self._before_restart, self._renewal.look
        )

    def _before_restart(self) -> None:
        """What systemd keeps for the next daemon stays open to clients."""
        self._parts.listeners.hand_over(self._herald.kept)

    def _reopen(self) -> str:
        """Why the log could not be opened anew; "" if it was."""
        try:
            self._log_file.open()
        except SrvdError as exc:
            return exc.message
        self._log.renew()  # what was a file may be a pipe now, on which a write could wait
        return ""
