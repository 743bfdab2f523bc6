"""Handles the processes of a daemon that died, at the next start: adopts them, or sends them away.

Imported only in this case. `former.py` finds the processes in the state; the core decides what follows for its state.
"""

from __future__ import annotations

from collections.abc import Callable

from srvd.daemon.family.callers import Calls, users_of
from srvd.daemon.recovery import state_file
from srvd.daemon.recovery.adopt import Adoption, find
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.former import Former, look
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.recovery.rejects import Reject, send_all_away
from srvd.errors import SystemRefused, Unsupported
from srvd.record import Record
from srvd.wire.paths import state_path

__all__ = ["Found", "search"]


class Found(Record):
    """Result of the search. Without an adoption a new family begins, on these `listeners`."""

    adoption: Adoption | None = None
    calls: Calls | None = None
    rejects: tuple[Reject, ...] = ()
    listeners: tuple[int, ...] = ()


def search(preconditions: Preconditions, say: Callable[[str], None]) -> Found:
    """Search for the family of a daemon that died. Call it when the lock is not held; afterwards the lock is held.

    Raises `SystemRefused`: a process lives that can neither be adopted nor sent away; nothing was changed then.
    """
    calls: Calls | None = None
    try:
        lock = preconditions.family_lock
        former, readable = _look(preconditions, say) if lock.rendezvous else (None, False)
        users = users_of(former.found.shell.configs.values()) if former is not None else None
        calls = Calls(lock.rendezvous, users) if lock.rendezvous else None
        adopted = find(former, calls, say) if former is not None and calls is not None else None
        if adopted is not None:
            lock.join()
            return Found(adopted, calls, tuple(adopted.rejects))
        if readable:
            _void(preconditions.left)
        rejects, listeners = send_all_away(lock, calls, say, nobody=readable)
        if readable and rejects:
            say("no process that the state of a former daemon names is alive; the others were sent away")
        if not lock.is_in_place:  # it came from the service manager; a new family must be found by the path
            lock.renew()
        return Found(None, calls, tuple(rejects), tuple(listeners))
    except BaseException as exc:
        if calls is not None:
            calls.close()
        if isinstance(exc, OSError):
            raise SystemRefused(f"adopt what a daemon that died has left: {exc.strerror}; nothing was started") from exc
        raise


def _look(preconditions: Preconditions, say: Callable[[str], None]) -> tuple[Former | None, bool]:
    """Return the family to be adopted, and whether the state is readable. If not, clear the service manager's copy."""
    path = state_path(preconditions.control_socket.path)
    try:
        return look(_state(path, preconditions.left)), True
    except Unsupported as exc:
        aside = state_file.set_aside(path)
        where = f"; the state is kept as {aside}" if aside else ""
        say(f"{exc.message}; each remaining worker is sent away when its requests are over{where}")
        _void(preconditions.left)
        return None, False


def _state(path: str, left: StoreCopy | None) -> bytes:
    """Return the newest state: beside the control socket, or from the service manager. Raises `Unsupported`."""
    copy = left.read() if left is not None else None
    try:
        file = state_file.read(path)
    except Unsupported:
        if copy is None:
            raise
        file = None
    newest = max((one for one in (file, copy) if one is not None), default=None)
    if newest is None:
        raise Unsupported("a daemon that died has left no state")
    return newest.data


def _void(left: StoreCopy | None) -> None:
    if left is not None:
        left.clear()
        left.close()
