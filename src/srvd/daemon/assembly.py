"""Makes the whole daemon from its foundation, bottom-up: each part is complete when it has been made.

Starts nothing and opens nothing.
"""

from __future__ import annotations

from functools import partial

from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.server import ControlServer
from srvd.daemon.dispatch.config_reader import ConfigReader
from srvd.daemon.dispatch.dispatcher import Dispatcher
from srvd.daemon.dispatch.effects import Effects
from srvd.daemon.foundation import Foundation
from srvd.daemon.main import Daemon
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.recovery.preconditions import state_file_path
from srvd.daemon.recovery.saver import StateSaver
from srvd.daemon.state.collector import StateCollector
from srvd.daemon.upgrade.replace import Upgrade
from srvd.daemon.watch import headroom
from srvd.daemon.watch.monitors import Monitors
from srvd.daemon.watch.renewal import Renewal

__all__ = ["compose"]


def compose(base: Foundation, began: float) -> Daemon:
    """Make the daemon. `began`: time of the start, in monotonic seconds."""
    loop, parts, emit, performer = base.loop, base.parts, base.queue.put, base.performer
    processes, revisions = performer.processes, performer.revisions
    core, listeners, log, workers = parts.core, parts.listeners, parts.log, processes.workers
    backend = DaemonBackend(core.state, workers, processes.zygotes, emit, base.configs, listeners.described, began)
    control = ControlServer(loop, backend, base.announcer.note, base.settings.name)
    renewal = Renewal(parts.family_lock, listeners, backend.submit, control, log)
    monitors = Monitors(base.request_timeout, core.state, workers, revisions.listeners, emit, renewal.mend)
    late_callers = LateCallers(loop, processes, core.state, emit)
    collector = StateCollector(base, control, late_callers, began)
    path = state_file_path(base.settings)
    saver = StateSaver(collector.collect, parts.family_lock, parts.store_copy, path, log.warning)
    upgrade = Upgrade(loop, core, emit, collector.collect, parts.program, parts.source_archive, control, base.notifier)
    read, measure = partial(renewal.before, base.source.read), partial(headroom.headroom, core.state)
    reader = ConfigReader(base.configs, read, measure, listeners, log)
    effects = Effects(
        loop, base.configs, reader, listeners, control, monitors, upgrade, saver,
        base.settings.log_file, base.settings.log_mode, log, emit
    )  # fmt: skip
    dispatcher = Dispatcher(
        loop, core, base.queue, performer, effects, backend, control, base.announcer, log, base.trace
    )  # fmt: skip
    return Daemon(base, dispatcher, effects, backend, control, monitors, late_callers, saver, upgrade, renewal)
