"""What a start stands on before it starts anybody: the control socket's path is ours, and the lock of the family.

If other processes hold the lock, a daemon has died and left them: `recover.py` sees to them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

from srvd.config.settings import DaemonSettings
from srvd.daemon.control.peers import Roles
from srvd.daemon.control.socket_path import SocketPath, answers, is_ours
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.recovery import fd_store
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.errors import SystemRefused
from srvd.linux import holders
from srvd.linux.systemd import Unit
from srvd.record import Record
from srvd.wire.paths import OFF, family_path, own_rundirs, rundir, socket_path

__all__ = ["Preconditions", "beside", "control_path", "prepare"]


class Preconditions(Record):
    claim: SocketPath
    roles: Roles
    family_lock: FamilyLock
    left: StoreCopy | None = None  # with the service manager, by a daemon that died


def control_path(settings: DaemonSettings) -> str:
    """Where the control socket of this instance is; "": there is none."""
    if settings.socket == OFF:
        return ""
    return settings.socket or socket_path(settings.name, rundir(os.geteuid(), os.environ))


def beside(settings: DaemonSettings, name: Callable[[str], str]) -> str:
    """The path of a file beside it (`wire/paths.py` names them), "" if there is no control socket."""
    path = control_path(settings)
    return name(path) if path else ""


def prepare(settings: DaemonSettings, unit: Unit) -> Preconditions:
    """Raises `SystemRefused`: another daemon runs, or the folder is none of ours; `ConfigInvalid`: a role is given to
    nobody. Nothing is left behind then.
    """
    path, family = control_path(settings), beside(settings, family_path)
    roles = Roles.resolve(settings.roles, os.geteuid())
    if not settings.socket:
        _look_elsewhere(settings.name, path)
    claim = SocketPath.open(path, shared=roles.shared) if path else SocketPath.of_nothing()
    try:
        left = fd_store.find(unit) if path else None
        if not path:
            return Preconditions(claim, roles, FamilyLock.unnamed())
        if left is None:
            return Preconditions(claim, roles, FamilyLock.open(family, is_stored=unit.store > 0))
        lock = FamilyLock(family, left.lock, left.store_copy.family, is_held=False, is_stored=True)
        return Preconditions(claim, roles, lock, left.store_copy)
    except BaseException:
        claim.close()
        raise


def _look_elsewhere(name: str, path: str) -> None:
    """The instance may have been started from another environment, and be in another place. Raises `SystemRefused`."""
    for directory in own_rundirs(os.geteuid(), os.environ):
        other = socket_path(name, directory)
        if other == path or not _is_ours(directory):
            continue
        if answers(other):
            raise SystemRefused(
                f"start the instance {name}: it runs already, with its control socket {other}",
                hint=f"stop it (`srvctl -s {other} stop`), or give this one another --name",
            )
        if left := _members(family_path(other)):
            raise SystemRefused(
                f"start the instance {name}: a daemon of this name has died and left {left}, by {other}",
                hint=f"--socket {other} adopts them; or give this one another --name",
            )


def _is_ours(directory: str) -> bool:
    try:
        return is_ours(os.lstat(directory))
    except OSError:
        return False


def _members(family: str) -> str:
    """Those that hold the lock of this family, for a message; "" if it is free."""
    try:
        lock = os.open(family, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return holders.spell(holders.lockers(lock)) or "its workers"
    finally:
        os.close(lock)
    return ""
