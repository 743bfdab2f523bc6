"""The foundation of a daemon: what starts its first zygotes, with the parts that outlive its program.

Decides nothing. `assembly.py` makes the rest of the daemon from them while the first zygotes load.
"""

from __future__ import annotations

import time

from srvd.config.settings import DaemonSettings
from srvd.config.source import Source
from srvd.core.actions import Action, StartZygote
from srvd.core.events import Event
from srvd.daemon.announcer import Announcer
from srvd.daemon.children.performer import Performer
from srvd.daemon.detach import StartReport
from srvd.daemon.dispatch.configs import Configs
from srvd.daemon.dispatch.event_queue import EventQueue
from srvd.daemon.dispatch.tracing import tracer
from srvd.daemon.loop import Loop
from srvd.daemon.parts import Parts
from srvd.daemon.systemd_notifier import SystemdNotifier
from srvd.daemon.watch.request_timeout import RequestTimeoutMonitor

__all__ = ["Foundation"]


class Foundation:
    """Loop, queue and processes of one daemon. `in_order`: the daemon ends in good order and leaves no process."""

    def __init__(
        self, parts: Parts, settings: DaemonSettings, source: Source, report: StartReport, *, daemonized: bool
    ) -> None:
        """`source`: reads the configuration anew; `report`: to the command that waits for the start."""
        state, listeners, log = parts.core.state, parts.listeners, parts.log
        self.parts = parts
        self.settings = settings
        self.source = source
        self.in_order = True
        self.loop = Loop(self._bug)
        self.queue = EventQueue()
        self.performer = Performer(
            self.loop, parts.commons, listeners, self.queue.put, self._bell_rang, log.captured, parts.family_lock
        )
        workers = self.performer.processes.workers
        self.request_timeout = RequestTimeoutMonitor(
            state, parts.commons.bell, workers.facts, workers.state, self.queue.put
        )
        self.configs = Configs(self.performer.revisions.settle)
        self.notifier = SystemdNotifier(parts.unit, state, parts.to_store, log.warning)
        self.announcer = Announcer(
            settings, state, self.configs, listeners, self.notifier, report, log, daemonized=daemonized
        )
        self.trace = tracer(log, settings.log_level)

    def start(self, first: Event) -> list[Action]:
        """Hand the core its first event, and start the zygotes. Returns the other actions, for the dispatcher."""
        actions = self.parts.core.handle(first, time.monotonic())
        if self.trace is not None:
            self.trace(">", first)
            for action in actions:
                self.trace("<", action)
        for action in actions:
            if isinstance(action, StartZygote):
                self.performer.perform(action)
        self.announcer.look()
        return [action for action in actions if not isinstance(action, StartZygote)]

    def close(self) -> None:
        """Close everything, because the daemon ends. If not in order, the processes wait for another daemon."""
        self.notifier.close()
        self.performer.processes.close(dismiss=self.in_order)
        self.parts.commons.close()
        (self.parts.listeners.close if self.in_order else self.parts.listeners.abandon)()
        self.loop.close()

    def _bell_rang(self) -> None:
        self.request_timeout.bell_rang()

    def _bug(self, problem: Exception) -> None:
        import traceback  # imported long ago, by `dispatch/config_reader.py`; above, zygotes would wait 3 ms for it

        text = "".join(traceback.format_exception(problem))
        self.parts.log.error(f"a bug in srvd: {problem!r}\n{text}".rstrip())
