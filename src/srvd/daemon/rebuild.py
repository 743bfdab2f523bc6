"""Makes a daemon from a state and its descriptors: after an upgrade, and after the death of a daemon.

Does not know where they come from: `entry/resume.py` gets both from a former program, `entry/start.py` gets the state
from a file and the descriptors from the orphans of a dead daemon.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from srvd.config.settings import Config
from srvd.config.source import Source
from srvd.core.events import ZygoteGone
from srvd.core.model import Revision
from srvd.core.supervisor import Supervisor
from srvd.daemon.assembly import compose
from srvd.daemon.children.commons import Commons
from srvd.daemon.components import Foundation, Parts
from srvd.daemon.control.peers import Roles
from srvd.daemon.detach import StartReport
from srvd.daemon.family.callers import users_of
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.handover import Handover, Shell
from srvd.daemon.listeners import Listeners
from srvd.daemon.main import Daemon
from srvd.daemon.recovery.adopt import Adoption
from srvd.daemon.recovery.envelope import sums
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.preconditions import Preconditions, beside
from srvd.daemon.upgrade.program import this_program
from srvd.daemon.upgrade.source_archive import SourceArchive
from srvd.errors import SrvdError
from srvd.linux.systemd import Unit
from srvd.log import Log
from srvd.wire.paths import family_path

__all__ = ["adopt", "parts_of_dead", "rebuild"]


def rebuild(found: Handover, table: FdTable) -> Daemon:
    """Make the daemon that a former program was, without starting it. Raises `Unsupported`, `OSError`."""
    house, shell = found
    settings = shell.configs[shell.current].daemon
    log = Log(2, settings.log_format, settings.log_level, shared=True)
    family_lock = FamilyLock.restore(shell.lock, table, beside(settings, family_path))
    parts = Parts(
        Commons.taken(table, settings.max_workers),
        Listeners.restore(shell.listening, table),
        Supervisor(house=house),
        this_program(shell.program.command),
        shell.unit,
        SourceArchive(table.find("source archive")),
        family_lock,
        StoreCopy.restore(shell.lock.rendezvous, shell.unit, table),
        log,
    )
    base = Foundation(parts, settings, StartReport(None), daemonized=shell.daemonized)
    base.notifier.restore(shell.stored)
    _restore(base, shell, shell.configs, table)
    daemon = compose(base, Source.restore(shell.source), shell.began)
    users = users_of(shell.configs.values())
    daemon.late_callers.restore(shell.rejects, family_lock, users, table, log.warning)
    daemon.control.restore(shell.control, _roles(base), table)
    return daemon


def parts_of_dead(adoption: Adoption, max_workers: int, preconditions: Preconditions, unit: Unit, log: Log) -> Parts:
    """Make the parts of a daemon from those that a dead one has left, and from new ones."""
    handed, table, family_lock = adoption.found, adoption.table, preconditions.family_lock
    listeners = Listeners.restore(handed.shell.listening, table)
    listeners.complete(unit)
    return Parts(
        Commons.taken(table, max_workers, brought=True),
        listeners,
        Supervisor(house=handed.house),
        this_program(),
        unit,
        SourceArchive(),
        family_lock,
        preconditions.left or StoreCopy.create(family_lock.rendezvous, unit),
        log,
    )


def adopt(daemon: Daemon, adoption: Adoption, fresh: Config) -> bool:
    """Restore the state of a daemon that died, and tell the core which of its processes live. Returns whether the
    configuration has changed.

    Raises `Unsupported`, `OSError`: no process has received an order.
    """
    base, shell = daemon.base, adoption.found.shell
    former, performer = shell.configs[shell.current], base.performer
    configs = {revision: _with_keys(one, fresh) for revision, one in shell.configs.items()}
    _restore(base, shell, configs, adoption.table)
    daemon.dispatcher.begin()
    performer.greet()
    for one in adoption.events:
        if isinstance(one, ZygoteGone):
            performer.workers.zygote_gone(one.generation)
    for event in adoption.events:
        base.queue.put(event)
    return (former.pools, former.listeners, adoption.sums) != (fresh.pools, fresh.listeners, sums(fresh))


def _restore(base: Foundation, shell: Shell, configs: Mapping[Revision, Config], table: FdTable) -> None:
    """Restore what an upgrade and an adoption have in common. Raises `Unsupported`, `OSError`."""
    base.request_timeout.restore(shell.overdue)
    base.configs.restore(configs, shell.current)
    base.performer.restore(shell.family, table)


def _with_keys(config: Config, fresh: Config) -> Config:
    """Return a configuration of the state with the daemon's settings from `fresh`, and with its keys for all listeners
    that are the same.
    """
    same = {name for name, one in fresh.listeners.items() if config.listeners.get(name) == one}
    return config._replace(daemon=fresh.daemon, tls={name: one for name, one in fresh.tls.items() if name in same})


def _roles(base: Foundation) -> Roles:
    try:
        return Roles.resolve(base.settings.roles, os.geteuid())
    except SrvdError as exc:  # a user was deleted: no reason to stop the daemon
        base.parts.log.error(f"{exc.message}; only root and the daemon's user have a role")
        return Roles.resolve({}, os.geteuid())
