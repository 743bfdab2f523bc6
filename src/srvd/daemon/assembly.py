"""Makes the whole daemon from its foundation, bottom-up: each part is complete when it has been made.

Starts nothing and opens nothing.
"""

from __future__ import annotations

from functools import partial

from srvd.config.source import Source
from srvd.daemon.children.dump import Dumps
from srvd.daemon.collector import StateCollector
from srvd.daemon.components import Foundation
from srvd.daemon.control.backend import DaemonBackend
from srvd.daemon.control.server import ControlServer
from srvd.daemon.dispatch.config_reader import ConfigReader
from srvd.daemon.dispatch.dispatcher import Dispatcher
from srvd.daemon.dispatch.effects import Effects
from srvd.daemon.files import LogFile
from srvd.daemon.main import Daemon
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.recovery.preconditions import beside
from srvd.daemon.recovery.saver import StateSaver
from srvd.daemon.upgrade.replace import Upgrade
from srvd.daemon.watch import headroom
from srvd.daemon.watch.liveness import LivenessMonitor
from srvd.daemon.watch.memory_limit import MemoryLimitMonitor
from srvd.daemon.watch.monitors import Monitors
from srvd.daemon.watch.renewal import Renewal
from srvd.wire.paths import state_path

__all__ = ["compose"]


def compose(base: Foundation, source: Source, began: float) -> Daemon:
    """Make the daemon. `source`: reads its configuration anew; `began`: time of the start, in monotonic seconds."""
    loop, parts, emit, performer = base.loop, base.parts, base.queue.put, base.performer
    core, listeners, log, workers = parts.core, parts.listeners, parts.log, performer.workers
    dumps = Dumps(workers, performer.zygotes)
    backend = DaemonBackend(core.house, workers, emit, base.configs, listeners.described, dumps, began)
    control = ControlServer(loop, backend, base.announcer.note, base.settings.name)
    renewal = Renewal(parts.family_lock, listeners, backend.submit, control, log)
    monitors = Monitors(
        base.request_timeout,
        MemoryLimitMonitor(core.house, workers.rss, emit),
        LivenessMonitor(core.house, workers, performer.listeners, emit, renewal.mend),
    )
    late_callers = LateCallers(loop, performer, core.house, emit)
    collector = StateCollector(base, source, control, late_callers, began)
    path = beside(base.settings, state_path)
    saver = StateSaver(collector.collect, parts.family_lock, parts.store_copy, path, log.warning)
    upgrade = Upgrade(loop, core, emit, collector.collect, parts.program, parts.source_archive, control, base.notifier)
    read, measure = partial(renewal.before, source.read), partial(headroom.headroom, core.house)
    reader = ConfigReader(base.configs, read, measure, listeners, log)
    log_file = LogFile(base.settings.log_file)
    effects = Effects(
        loop, base.configs, reader, listeners, control, monitors, upgrade, saver, log_file, log, emit
    )  # fmt: skip
    dispatcher = Dispatcher(
        loop, core, base.queue, performer, effects, backend, control, base.announcer, log, base.trace
    )  # fmt: skip
    return Daemon(base, dispatcher, effects, backend, control, monitors, late_callers, saver, upgrade, renewal)
