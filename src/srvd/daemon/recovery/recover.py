"""A start after a daemon that died: who is left of it is adopted, or sent away, and the new daemon goes on from there.

Imported only then. Whom the state names is found by `adopt.py`; what follows for the state the core decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from srvd.config.settings import Config
from srvd.core.events import Event, ZygoteGone
from srvd.daemon.children.performer import Performer
from srvd.daemon.dispatcher import Dispatcher
from srvd.daemon.family.callers import Calls, users_of
from srvd.daemon.recovery import adopt, state_file
from srvd.daemon.recovery.adopt import Adoption, Former
from srvd.daemon.recovery.envelope import sums
from srvd.daemon.recovery.fd_store import StoreCopy
from srvd.daemon.recovery.preconditions import Preconditions
from srvd.daemon.recovery.rejects import Reject, dissolve
from srvd.daemon.watch.request_timeout import RequestTimeoutMonitor
from srvd.errors import SystemRefused, Unsupported
from srvd.record import Record
from srvd.wire.paths import state_path

__all__ = ["Found", "go_on", "search"]


class Found(Record):
    """What there was. Without an adoption a family of its own begins, on these `listeners`."""

    adoption: Adoption | None = None
    calls: Calls | None = None
    strays: tuple[Reject, ...] = ()
    listeners: tuple[int, ...] = ()


class Heir(Protocol):
    """The parts of the daemon that go on."""

    engine: Dispatcher
    performer: Performer
    overdue: RequestTimeoutMonitor

    def emit(self, event: Event) -> None: ...


def search(ground: Preconditions, say: Callable[[str], None]) -> Found:
    """To be called when the bond is not held; it is afterwards. Raises `SystemRefused`: somebody lives who can neither
    be adopted nor sent away; nothing was changed then.
    """
    calls: Calls | None = None
    try:
        bond = ground.bond
        former, readable = _look(ground, say) if bond.rendezvous else (None, False)
        users = users_of(former.found.shell.configs.values()) if former is not None else None
        calls = Calls(bond.rendezvous, users) if bond.rendezvous else None
        adopted = adopt.find(former, calls, say) if former is not None and calls is not None else None
        if adopted is not None:
            bond.join()
            return Found(adopted, calls, tuple(adopted.strays))
        if readable:
            _void(ground.left)
        strays, listeners = dissolve(bond, calls, say, nobody=readable)
        if readable and strays:
            say("nobody of those whom the state of a daemon that died names lives; the others were sent away")
        if not bond.is_in_place:  # it came from the service manager: those who begin here are to be found by the path
            bond.renew()
        return Found(None, calls, tuple(strays), tuple(listeners))
    except BaseException as exc:
        if calls is not None:
            calls.close()
        if isinstance(exc, OSError):
            raise SystemRefused(f"adopt what a daemon that died has left: {exc.strerror}; nothing was started") from exc
        raise


def _look(ground: Preconditions, say: Callable[[str], None]) -> tuple[Former | None, bool]:
    """Who is to be adopted, and whether there is a state that says so. What the service manager has kept is void if
    there is none.
    """
    path = state_path(ground.claim.path)
    try:
        return adopt.look(_state(path, ground.left)), True
    except Unsupported as exc:
        aside = state_file.set_aside(path)
        kept = f"; the state is kept as {aside}" if aside else ""
        say(f"{exc.message}; who is left is sent away when its requests are over{kept}")
        _void(ground.left)
        return None, False


def _state(path: str, left: StoreCopy | None) -> bytes:
    """The newest there is, beside the socket or with the service manager. Raises `Unsupported`."""
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


def go_on(heir: Heir, found: Adoption, fresh: Config) -> bool:
    """Take over what was found, and tell the core; whether another configuration was in force.

    Raises `Unsupported`, `OSError`: nobody has been told anything.
    """
    shell = found.found.shell
    former = shell.configs[shell.current]
    heir.overdue.resume(shell.overdue)
    heir.engine.resume({revision: _with_keys(one, fresh) for revision, one in shell.configs.items()}, shell.current)
    heir.performer.restore(shell.family, found.kept)
    heir.performer.greet()
    for one in found.events:
        if isinstance(one, ZygoteGone):
            heir.performer.workers.zygote_gone(one.generation)
    for event in found.events:
        heir.emit(event)
    return (former.pools, former.listeners, found.sums) != (fresh.pools, fresh.listeners, sums(fresh))


def _with_keys(config: Config, fresh: Config) -> Config:
    """A configuration of the state, with the daemon's settings and the keys of the one that was read anew, as far as
    the listeners are the same.
    """
    same = {name for name, one in fresh.listeners.items() if config.listeners.get(name) == one}
    return config._replace(daemon=fresh.daemon, tls={name: one for name, one in fresh.tls.items() if name in same})
