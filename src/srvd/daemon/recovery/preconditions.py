"""Claims what a start needs before its first process: the path of the control socket, and the lock of the family.

If other processes hold the lock, they are orphans of a daemon that died, and `recover.py` handles them.
"""

from __future__ import annotations

import fcntl
import os

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
from srvd.wire.paths import OFF, family_path, own_rundirs, rundir, socket_path, state_path

__all__ = ["Preconditions", "control_path", "family_lock_path", "prepare", "state_file_path"]


class Preconditions(Record):
    control_socket: SocketPath
    roles: Roles
    family_lock: FamilyLock
    left: StoreCopy | None = None  # what a daemon that died left with the service manager


def control_path(settings: DaemonSettings) -> str:
    """Return the path of this instance's control socket; "": there is none."""
    if settings.socket == OFF:
        return ""
    return settings.socket or socket_path(settings.name, rundir(os.geteuid(), os.environ))


def family_lock_path(settings: DaemonSettings) -> str:
    """Return the path of the family's lock, beside the control socket; "" without one."""
    path = control_path(settings)
    return family_path(path) if path else ""


def state_file_path(settings: DaemonSettings) -> str:
    """Return the path of the state file, beside the control socket; "" without one."""
    path = control_path(settings)
    return state_path(path) if path else ""


def prepare(settings: DaemonSettings, unit: Unit) -> Preconditions:
    """Claim the path and open the lock. Leaves nothing behind when it raises.

    Raises `SystemRefused`: another daemon runs, or the folder belongs to another user; `ConfigInvalid`: a role is given
    to a user or group that does not exist.
    """
    path, family = control_path(settings), family_lock_path(settings)
    roles = Roles.resolve(settings.roles, os.geteuid())
    if not settings.socket:
        _look_elsewhere(settings.name, path)
    control_socket = SocketPath.open(path, shared=roles.shared) if path else SocketPath.of_nothing()
    try:
        left = fd_store.find(unit) if path else None
        if not path:
            return Preconditions(control_socket, roles, FamilyLock.unnamed())
        if left is None:
            return Preconditions(control_socket, roles, FamilyLock.open(family, is_stored=unit.store > 0))
        lock = FamilyLock(family, left.lock, left.store_copy.family, is_held=False, is_stored=True)
        return Preconditions(control_socket, roles, lock, left.store_copy)
    except BaseException:
        control_socket.close()
        raise


def _look_elsewhere(name: str, path: str) -> None:
    """Look for the instance, or its orphans, in other folders: it may have been started from another environment.

    Raises `SystemRefused`: found.
    """
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
    """Return a text for the processes that hold the lock of this family; "" if the lock is free."""
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
