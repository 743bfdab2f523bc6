"""Between the core and the world: an event goes in, each action that comes out goes to the part that performs it.

Chooses nothing. Events come by one queue, so that what a performed action causes at once is handled after the action.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from srvd.core import actions as act
from srvd.core.events import Event, Tick
from srvd.core.model import OpId
from srvd.core.supervisor import Supervisor
from srvd.daemon.announcer import Announcer
from srvd.daemon.children.performer import Performer
from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.server import ControlServer
from srvd.daemon.dispatch.deadline import Deadline
from srvd.daemon.dispatch.effects import Effects
from srvd.daemon.dispatch.event_queue import EventQueue
from srvd.daemon.dispatch.tracing import Trace
from srvd.daemon.loop import Loop
from srvd.excerpt import excerpt
from srvd.log import Log

__all__ = ["Dispatcher"]


class Dispatcher:
    """Turns the core: `begin` handles what the queue has, and from then on each event when it is put."""

    def __init__(
        self,
        loop: Loop,
        core: Supervisor,
        queue: EventQueue,
        performer: Performer,
        effects: Effects,
        backend: DaemonBackend,
        control: ControlServer,
        announcer: Announcer,
        log: Log,
        trace: Trace | None = None,
    ) -> None:
        self._core = core
        self._queue = queue
        self._performer = performer
        self._effects = effects
        self._backend = backend
        self._control = control
        self._announcer = announcer
        self._log = log
        self._trace = trace
        self._deadline = Deadline(loop, core.next_deadline, lambda: queue.put(Tick()))

    def begin(self) -> None:
        """From here on events are handled and deadlines are kept."""
        self._queue.serve(self._turn, self._settle)
        self._deadline.arm()

    def perform(self, actions: Iterable[act.Action]) -> None:
        """Perform these in their order."""
        for action in actions:
            self._perform(action)

    def _turn(self, event: Event) -> None:
        self._effects.change()
        if self._trace is not None:
            self._trace(">", event)
        for action in self._core.handle(event, time.monotonic()):
            if self._trace is not None:
                self._trace("<", action)
            self._perform(action)

    def _settle(self) -> None:
        self._deadline.arm()
        self._announcer.look()

    def _note(self, note: act.Note) -> None:
        self._log.write(note.level.value, note.text, (("event", note.public_name), *note.fields))
        data = {"level": note.level.value, "text": note.text, **dict(note.fields)}
        self._control.publish(note.name.topic, note.public_name, data)

    def _perform(self, action: act.Action) -> None:
        match action:
            case act.Note():
                self._note(action)
            case act.Progress(op, phase, done, total, message):
                left = self._backend.still_draining() if phase == "drain" and done else ""
                self._control.progress(op, phase, done, total, left or message)
            case act.Opened() | act.Refused():
                self._backend.answered(action)
            case act.Ended(op):
                self._control.ended(op)
                if op == OpId(1):
                    self._announcer.started()
            case act.Exit() if self._trace is None:
                self._effects.perform(action._replace(text=excerpt(action.text, "--log-level debug")))
            case (
                act.ReadConfig()
                | act.Adopt()
                | act.ReopenLog()
                | act.CheckProgram()
                | act.ReplaceProgram()
                | act.Persist()
                | act.Exit()
            ):
                self._effects.perform(action)
            case _:
                self._effects.change()  # also if `Persist` came before, in the same turn
                if isinstance(action, act.DropRevision):
                    self._effects.drop(action.revision)
                self._performer.perform(action)
