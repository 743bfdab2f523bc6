"""Between the core and the world: an event goes in, each action that comes out goes to the part that performs it.

Chooses nothing. One queue, so that what a performed action causes at once is handled after the action, not inside it.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping

from srvd.config.lasting import with_lasting
from srvd.config.pool_spec import spec_of
from srvd.config.settings import Config
from srvd.core import actions as act
from srvd.core.events import ConfigRead, ConfigRefused, Event, LogReopened, Tick
from srvd.core.model import ErrorCode, Fault, Headroom, OpId, Revision
from srvd.core.supervisor import Supervisor
from srvd.daemon.children.performer import Performer
from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.server import ControlServer
from srvd.daemon.event_queue import EventQueue
from srvd.daemon.listeners import Listeners, named
from srvd.daemon.loop import Loop, Timer
from srvd.errors import SrvdError
from srvd.excerpt import excerpt
from srvd.log import Log

Trace = Callable[[str, object], None]


BUSY_PATIENCE = 5.0
"""Seconds for which a start tries an address that is in use."""

_BUSY_PAUSE = 0.1

_LATE = 1.0
"""Seconds by which a deadline may be seen late without a meaning: the machine is busy."""

_RESPITE = 5.0
"""Seconds for those who stood still together with us – the group was stopped, the container paused – to show that they
are in time. How long that was is not known: the deadline fell somewhere into it."""

MOST_UNTOLD = 1000
"""Notes from before there was a control socket to tell them on."""


class Dispatcher:
    """Turns the core. `emit` may be called at any time on the one thread, also while an action is performed."""

    def __init__(self, core: Supervisor, performer: Performer, listeners: Listeners, log: Log) -> None:
        self._core = core
        self._performer = performer
        self._listeners = listeners
        self._log = log
        self._events = EventQueue(self._turn, self._arm)
        self._untold: deque[act.Note] = deque(maxlen=MOST_UNTOLD)
        self._timer: Timer | None = None
        self._due: float | None = None
        self._respite = 0.0  # no deadline has passed before
        self._loop: Loop | None = None
        self.configs: dict[Revision, Config] = {}
        self.current = Revision(0)
        # Set by `main.py` before the first event.
        self.reread: Callable[[], Config]
        self.headroom: Callable[[list[str]], tuple[tuple[str, Headroom], ...]]
        self.answers: DaemonBackend
        self.on_exit: Callable[[act.Exit], None]
        self.on_ready: Callable[[], None]
        self.reopen_log: Callable[[], str]  # why it could not be opened anew, "" if it was
        self.on_adopted: Callable[[], None]
        self.on_turned: Callable[[], None]
        self.on_change: Callable[[], None]
        self.persist: Callable[[], None]
        self.check_program: Callable[[OpId], None]
        self.replace_program: Callable[[OpId], None]
        self.trace: Trace | None = None
        self.control: ControlServer | None = None

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.configs[self.current]

    def adopt(self, revision: Revision, config: Config) -> None:
        """The first configuration: its listeners are opened. Raises `SystemRefused`.

        Whoever holds an address may be about to end, as the server that this one follows: it is tried for a while.
        """
        until = time.monotonic() + BUSY_PATIENCE
        told = False
        while True:
            try:
                warnings = self._listeners.prepare(revision, config.listeners)
                break
            except SrvdError as exc:
                if not exc.detail.get("busy") or time.monotonic() >= until:
                    raise named(exc) from exc
                if not told:
                    self._log.warning(f"{exc.detail['busy']} is taken; trying for {BUSY_PATIENCE:g} s")
                told = True
                time.sleep(_BUSY_PAUSE)
        for warning in warnings:
            self._log.warning(warning)
        self._settle(revision, config)
        self.current = revision

    def resume(self, configs: Mapping[Revision, Config], current: Revision) -> None:
        """The configurations that are in use, their listeners open already."""
        for revision, config in configs.items():
            self._settle(revision, config)
        self.current = current

    def attach(self, loop: Loop) -> None:
        """From here on deadlines are kept, and watchers can be told: first of what there was before they could ask."""
        while self.control is not None and self._untold:
            self._publish(self.control, self._untold.popleft())
        self._loop = loop
        self._arm()

    def emit(self, event: Event) -> None:
        """Hands one event to the core and performs what follows, unless that is being done already."""
        if self._events.put(event):
            self.on_turned()

    def _turn(self, event: Event) -> None:
        if self.trace is not None:
            self.trace(">", event)
        self.on_change()
        for action in self._core.handle(event, time.monotonic()):
            if self.trace is not None and not isinstance(action, act.Note):
                self.trace("<", action)
            self._perform(action)

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.Note():
                self._note(action)
            case act.Progress(op, phase, done, total, message):
                if self.control is not None:
                    left = self.answers.still_draining() if phase == "drain" and done else ""
                    self.control.progress(op, phase, done, total, left or message)
            case act.Persist():
                self.persist()
            case act.Opened() | act.Refused():
                self.answers.answered(action)
            case act.Ended(op):
                self._ended(op)
            case act.ReadConfig(op):
                self._read_config(op)
            case act.Adopt(revisions):
                self._adopt(revisions)
            case act.DropRevision(revision):
                self._drop(revision)
                self._performer.perform(action)
            case act.CheckProgram(op):
                self.check_program(op)
            case act.ReplaceProgram(op):
                self.replace_program(op)
            case act.ReopenLog():
                self.emit(LogReopened(self.reopen_log()))
            case act.Exit():
                all_of_it = self.trace is not None
                self.on_exit(action if all_of_it else action._replace(text=excerpt(action.text, "--log-level debug")))
            case _:
                self.on_change()  # also if `Persist` came before, in the same turn
                self._performer.perform(action)

    def _drop(self, revision: Revision) -> None:
        if revision != self.current:  # that of a start that failed: it is shown as long as the daemon is there
            self.configs.pop(revision, None)

    def _note(self, note: act.Note) -> None:
        self._log.write(note.level.value, note.text, (("event", note.public_name), *note.fields))
        if self.control is not None:
            self._publish(self.control, note)
        else:
            self._untold.append(note)

    def _publish(self, control: ControlServer, note: act.Note) -> None:
        data = {"level": note.level.value, "text": note.text, **dict(note.fields)}
        control.publish(note.name.topic, note.public_name, data)

    def _ended(self, op: OpId) -> None:
        if self.control is not None:
            self.control.ended(op)
        if op == 1:
            self.on_ready()

    def _read_config(self, op: OpId) -> None:
        revision = Revision(max(self.configs) + 1)
        try:
            config = with_lasting(self.config, self.reread())
            headroom = self.headroom(list(config.pools))
            warnings = self._listeners.prepare(revision, config.listeners)
        except SrvdError as exc:
            exc = named(exc)
            proof = str(exc.detail.get("traceback", ""))
            self.emit(ConfigRefused(op, Fault(ErrorCode(exc.code), exc.message, exc.hint, "config", traceback=proof)))
            return
        except Exception as exc:  # the operation ends here: left open, it would keep every later reload waiting
            self._log.error(f"read the configuration: a bug in srvd: {exc!r}\n{traceback.format_exc()}")
            self.emit(
                ConfigRefused(
                    op, Fault(ErrorCode.INTERNAL, f"read the configuration: {exc!r}; see the log", step="config")
                )
            )
            return
        for warning in (*config.warnings, *warnings):
            self._log.warning(warning)
        self._settle(revision, config)
        specs = tuple(spec_of(pool) for pool in config.pools.values())
        self.emit(ConfigRead(op, revision, specs, headroom, (*config.warnings, *warnings)))

    def _settle(self, revision: Revision, config: Config) -> None:
        self.configs[revision] = config
        self._performer.settle(revision, config)

    def _adopt(self, revisions: tuple[Revision, ...]) -> None:
        self.current = max(revisions)
        try:
            self._listeners.adopt(revisions)
            if self.control is not None:
                self.control.permit(self.config.daemon.roles)
        except (SrvdError, OSError) as exc:
            self._log.error(f"adopt configuration {self.current}: {exc}; the rest of it is in force")
        self.on_adopted()

    def _arm(self) -> None:
        due = self._core.next_deadline()
        if due == self._due or self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = None if due is None else self._loop.call_at(max(due, self._respite), self._tick)

    def _tick(self) -> None:
        now, due = time.monotonic(), self._due
        self._timer = self._due = None
        if due is not None and now - max(due, self._respite) > _LATE:
            self._respite = now + _RESPITE
            self._arm()
        else:
            self.emit(Tick())


def tracer(log: Log) -> Callable[[str, object], None]:
    # Only with log_level = "debug": it costs 5 ms of import time and a line an event.
    from srvd.core.trace import spell

    return lambda way, what: log.debug(f"{way} {spell(what)}")
