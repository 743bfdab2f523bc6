"""Makes the daemon that a former program was from its state and its descriptors, without starting it.

Does not know how both were handed over: `resume.py` gets them from the former program. What an adoption restores
in the same way is here, too.
"""

from __future__ import annotations

import os

from srvd.config.source import Source
from srvd.daemon.assembly import compose
from srvd.daemon.control.peers import Roles
from srvd.daemon.detach import StartReport
from srvd.daemon.family.callers import users_of
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.fd_table import FdTable
from srvd.daemon.foundation import Foundation
from srvd.daemon.main import Daemon
from srvd.daemon.parts import restored_parts
from srvd.daemon.recovery.preconditions import family_lock_path
from srvd.daemon.state.model import Handover, Shell
from srvd.errors import SrvdError
from srvd.log import Log

__all__ = ["rebuild", "restore"]


def rebuild(found: Handover, table: FdTable) -> Daemon:
    """Make the daemon. Raises `Unsupported`, `OSError`."""
    shell = found.shell
    settings = shell.configs[shell.current].daemon
    log = Log(2, settings.log_format, settings.log_level, shared=True, raw=settings.worker_output == "raw")
    family_lock = FamilyLock.restore(shell.lock, table, family_lock_path(settings))
    parts = restored_parts(found, table, settings.max_workers, family_lock, log)
    source = Source.restore(shell.source)
    base = Foundation(parts, settings, source, StartReport(None), daemonized=shell.daemonized)
    base.notifier.restore(shell.stored)
    restore(base, shell, table)
    daemon = compose(base, shell.began)
    users = users_of(shell.configs.values())
    daemon.late_callers.restore(shell.rejects, family_lock, users, table, log.warning)
    daemon.control.restore(shell.control, _roles(base), table)
    return daemon


def restore(base: Foundation, shell: Shell, table: FdTable) -> None:
    """Restore what an upgrade and an adoption have in common. Raises `Unsupported`, `OSError`."""
    base.request_timeout.restore(shell.overdue)
    base.configs.restore(shell.configs, shell.current)
    base.performer.processes.restore(shell.family, table)


def _roles(base: Foundation) -> Roles:
    try:
        return Roles.resolve(base.settings.roles, os.geteuid())
    except SrvdError as exc:  # a user was deleted: no reason to stop the daemon
        base.parts.log.error(f"{exc.message}; only root and the daemon's user have a role")
        return Roles.resolve({}, os.geteuid())
