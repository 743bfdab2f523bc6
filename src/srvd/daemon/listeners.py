"""The listening sockets of all configurations in use: opened once, shared by those that name the same address.

Accepts nothing; the sockets go to zygotes by message and to workers by fork.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from srvd.config.settings import ListenerSettings
from srvd.core.model import Revision
from srvd.daemon.kept import Kept
from srvd.errors import ConfigInvalid
from srvd.linux import sockets
from srvd.linux.sockets import Address, PathId
from srvd.linux.systemd import Passed, Unit, spell_store_name
from srvd.record import Record

__all__ = ["Listeners", "Listening"]

NO_UNIT = Unit()

STORE_KIND = "listener"

RESTING = ".resting"
"""Ends the path of a Unix socket that no configuration in force names."""


class Open(Record):
    """One socket; `owned` is its file, for Unix sockets that this daemon bound; `lent` ones are the environment's."""

    socket: socket.socket
    owned: PathId | None
    resting: bool = False
    lent: bool = False

    def close(self) -> None:
        if self.owned is not None:
            sockets.unlink(self.owned)
        if not self.lent:
            sockets.end(self.socket)
        self.socket.close()


class Key(Record):
    """What makes two sockets one. With port 0, which asks for any port, that is also whose and which it is."""

    address: Address
    whose: str = ""


class Plan(Record):
    """What one configuration asks of one address."""

    name: str
    key: Key
    backlog: int
    mode: int
    reuse_port: bool


class Carried(Record):
    """One socket as it is handed over: all but the descriptor."""

    key: Key
    owned: PathId | None
    resting: bool
    lent: bool


class Listening(Record):
    """All of them, in order, what each configuration asks for, and what was passed at the start."""

    sockets: tuple[Carried, ...]
    plans: dict[Revision, tuple[Plan, ...]]
    passed: tuple[Passed, ...]


class Listeners:
    """Owns every listening socket of the daemon."""

    def __init__(self, unit: Unit = NO_UNIT) -> None:
        """`unit` has the sockets that were passed, each for the listener of its name."""
        self._open: dict[Key, Open] = {}
        self._plans: dict[Revision, list[Plan]] = {}
        self._passed = unit.sockets
        # By a former process of the service. What the first configuration does not name, nobody will.
        self._stored = unit.stored(STORE_KIND)
        self._handed: dict[str, int] = {}
        self._sealed = False

    def prepare(self, revision: Revision, wanted: Mapping[str, ListenerSettings]) -> list[str]:
        """Open what `wanted` names and is not open yet: all of it or nothing. Returns warnings.

        A socket that is open stays as it is until `adopt`. Raises `SystemRefused`, `ConfigInvalid`.
        """
        self._check_passed(wanted)
        plans = [
            Plan(name, key, settings.backlog, int(settings.mode, 8), settings.reuse_port)
            for name, settings in wanted.items()
            for key in self._keys(settings, wanted)
        ]
        fresh: dict[Key, Open] = {}
        try:
            for plan in plans:
                if plan.key not in self._open and plan.key not in fresh:
                    fresh[plan.key] = self._find(plan) or _open(plan)
        except BaseException:
            for opened in fresh.values():
                opened.close()
            raise
        self._open |= fresh
        self._plans[revision] = plans
        self._close_stored()
        return [warning for settings in wanted.values() for warning in self._overruled(revision, settings)]

    def adopt(self, revisions: Sequence[Revision]) -> None:
        """These configurations are in force: the newest one's backlogs and modes hold, and sockets that none of them
        names rest: no connection gets in, but they stay bound for a rollback. What waits in such a backlog is reset.
        """
        plans = {plan.key: plan for revision in sorted(revisions) for plan in self._plans.get(revision, [])}
        for key, opened in self._open.items():
            plan = plans.get(key)
            self._open[key] = _rest(key, opened) if plan is None else _serve(plan, opened)

    def of(self, revision: Revision, names: Sequence[str]) -> list[tuple[str, socket.socket]]:
        """Name and socket of each address of these listeners, in order; no names: of all of them."""
        return [
            (plan.name, self._open[plan.key].socket)
            for plan in self._plans.get(revision, [])
            if not names or plan.name in names
        ]

    def left_over(self, revision: Revision, names: Sequence[str]) -> list[int]:
        """The positions in `of` of those that somebody else goes on listening on, for the next daemon."""
        plans = [plan for plan in self._plans.get(revision, []) if not names or plan.name in names]
        return [place for place, plan in enumerate(plans) if self._open[plan.key].lent]

    def to_store(self) -> dict[str, int]:
        """What a service manager should keep for the next process of this service, by its name there."""
        if self._sealed:
            return self._handed
        named = {_store_name(key): opened for key, opened in self._open.items() if not opened.lent}
        return {name: opened.socket.fileno() for name, opened in named.items() if name and not opened.resting}

    def hand_over(self, stored: Container[str]) -> None:
        """The daemon leaves and another one comes: what is stored under these names is the store's from now on."""
        for key, opened in self._open.items():
            if _store_name(key) in stored:
                self._open[key] = opened._replace(lent=True, owned=None)
                self._handed[_store_name(key)] = opened.socket.fileno()

    def drop(self, revision: Revision) -> None:
        """Forget a configuration, and close what no other one names. What waits in a closed backlog is reset."""
        self._plans.pop(revision, None)
        needed = {plan.key for plans in self._plans.values() for plan in plans}
        for key in self._open.keys() - needed:
            self._open.pop(key).close()

    def seal(self) -> None:
        """Refuse new connections; what waits can still be accepted. Sockets of the environment stay as they are:
        systemd goes on listening on them, and what waits there is for the next daemon.
        """
        self._sealed = True
        for opened in self._open.values():
            if not opened.lent:
                try:
                    sockets.seal(opened.socket, opened.owned)
                except OSError:
                    # What the kernel refuses costs some late clients a reset; the stop has to go on.
                    continue

    def close_emptied(self) -> bool:
        """After `seal`: give up the ports for which nobody waits any more, in every process. False: all are given up.

        The workers have copies; without this the address would be taken until the last request is over.
        """
        left = False
        for opened in self._open.values():
            if opened.lent or opened.socket.family == socket.AF_UNIX:  # Unix: `seal` has removed the path
                continue
            if sockets.waiting(opened.socket):
                left = True
            else:
                sockets.end(opened.socket)
        return left

    def close(self) -> None:
        """Close all of them and remove their paths."""
        for opened in self._open.values():
            opened.close()
        self._open.clear()
        self._plans.clear()

    def carry(self, kept: Kept) -> Listening:
        """What another program needs to go on with these sockets; they stay as they are."""
        carried = []
        for number, (key, opened) in enumerate(self._open.items()):
            kept.give(f"listener {number}", opened.socket.fileno())
            carried.append(Carried(key, opened.owned, opened.resting, opened.lent))
        by_number = {one.fd for one in self._passed}
        by_number |= {key.address.port for key in self._open if key.address.kind == "fd"}
        for fd in by_number:  # its number is its name, in the configuration or by the manager
            kept.give(f"lent {fd}", fd)
        plans = {revision: tuple(plans) for revision, plans in self._plans.items()}
        return Listening(tuple(carried), plans, self._passed)

    @classmethod
    def resume(cls, listening: Listening, kept: Kept) -> Listeners:
        """Go on with what `carry` told. Raises `Unsupported`, `OSError`."""
        listeners = cls()
        listeners._passed = listening.passed
        for name in kept.table:
            if name.startswith("lent "):
                kept.take(name)
        for number, (key, owned, resting, lent) in enumerate(listening.sockets):
            found = socket.socket(fileno=kept.take(f"listener {number}"))
            listeners._open[key] = Open(found, owned, resting, lent)
        listeners._plans = {revision: list(plans) for revision, plans in listening.plans.items()}
        return listeners

    def inherit(self, fds: Iterable[int]) -> None:
        """Sockets that orphans brought, for whoever listens at their addresses from now on; the rest is closed."""
        for fd in fds:
            with socket.socket(fileno=os.dup(fd)) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                name = _store_name(Key(sockets.parse_address(sockets.describe(found)))) if listens else ""
            if name and name not in self._stored:
                self._stored[name] = fd
            else:
                os.close(fd)

    def complete(self, unit: Unit) -> None:
        """Of a daemon that died: open what plans name and nobody has brought, and undo what a stop under way had done.

        Raises `SystemRefused`.
        """
        self._stored = unit.stored(STORE_KIND)
        for opened in self._open.values():
            if opened.socket.family != socket.AF_UNIX:
                sockets.unseal(opened.socket)
        for plans in self._plans.values():
            for plan in plans:
                if plan.key not in self._open:
                    self._open[plan.key] = self._find(plan) or _open(plan)
        self._close_stored()

    def abandon(self) -> None:
        """Let go of them as they are: the daemon ends by a bug, and the workers go on with them."""
        for opened in self._open.values():
            opened.socket.close()
        self._open.clear()
        self._plans.clear()

    def described(self) -> list[dict[str, str]]:
        """Name and address (with the port that the kernel chose) of each socket, by the newest configuration."""
        names = {plan.key: plan.name for _, plans in sorted(self._plans.items()) for plan in plans}
        return [
            {"name": names[key], "address": sockets.describe(opened.socket)}
            for key, opened in self._open.items()
            if not opened.resting
        ]

    def _check_passed(self, wanted: Mapping[str, ListenerSettings]) -> None:
        """Each socket that was passed has to be for somebody; later configurations may forget about one."""
        keys = [key for settings in wanted.values() for key in self._keys(settings, wanted)]
        known = {key.address.port for key in keys if key.address.kind == "fd"}
        for name, fd in () if self._plans else self._passed:
            if fd not in known:
                called = f"called {name!r}" if name else "without a name"
                raise ConfigInvalid(
                    f"take the socket that was passed as descriptor {fd}: it is {called}, and no listener is; "
                    "nothing was started",
                    hint=f"FileDescriptorName= of its unit says whose it is; the listeners are {', '.join(wanted)}",
                )

    def _keys(self, settings: ListenerSettings, wanted: Mapping[str, ListenerSettings]) -> list[Key]:
        """The sockets that were passed for a listener; if there are none, its own addresses."""
        numbered = {text for one in wanted.values() for text in one.bind}
        names = (settings.name, "") if len(wanted) == 1 else (settings.name,)
        given = [one.fd for one in self._passed if one.name in names and f"fd:{one.fd}" not in numbered]
        return [Key(Address("fd", port=fd)) for fd in given] or [
            _key(sockets.parse_address(text), f"{settings.name}.{place}") for place, text in enumerate(settings.bind)
        ]

    def _overruled(self, revision: Revision, settings: ListenerSettings) -> Iterator[str]:
        """Somebody wrote an address that is not used, because sockets were passed in its place."""
        plans = [plan for plan in self._plans[revision] if plan.name == settings.name]
        passed = [plan.key for plan in plans if str(plan.key.address) not in settings.bind]
        used = [sockets.describe(self._open[key].socket) for key in passed if key.address.kind == "fd"]
        meant = settings.bind != ListenerSettings._field_defaults["bind"]
        if used and meant and {str(sockets.parse_address(text)) for text in settings.bind} != set(used):
            bind = ", ".join(settings.bind)
            yield f"listener {settings.name}: bind ({bind}) is not used: systemd passed {', '.join(used)}"

    def _close_stored(self) -> None:
        """Duplicates of what is open now, or what nobody names any more: it would go on listening."""
        for fd in self._stored.values():
            os.close(fd)
        self._stored = {}

    def _find(self, plan: Plan) -> Open | None:
        """The socket of this address that a former process has left in the fd store."""
        fd = self._stored.get(_store_name(plan.key))
        if fd is None:
            return None
        opened = sockets.open_listener(Address("fd", port=fd), plan.backlog, plan.mode)
        owned = sockets.path_id(opened)
        lost = plan.key.address.kind == "unix" and owned is None and not plan.key.address.host.startswith("@")
        if lost or not sockets.unseal(opened):  # nobody would find it
            Open(opened, owned).close()
            return None
        return Open(opened, owned)


def _store_name(key: Key) -> str:
    return spell_store_name(STORE_KIND, f"{key.whose}/{key.address}")


def _key(address: Address, whose: str) -> Key:
    any_port = address.kind in ("inet", "inet6") and address.port == 0
    return Key(address, whose if any_port else "")


def _open(plan: Plan) -> Open:
    opened = sockets.open_listener(plan.key.address, plan.backlog, plan.mode, reuse_port=plan.reuse_port)
    lent = plan.key.address.kind == "fd"
    return Open(opened, None if lent else sockets.path_id(opened), lent=lent)


def _rest(key: Key, opened: Open) -> Open:
    """Let nobody in, and stay bound. A port that the kernel chose would be another one afterwards: it stays open, as
    do abstract sockets and those of the environment.
    """
    if opened.resting or key.whose or opened.lent:
        return opened
    if opened.owned is not None:
        moved = sockets.move(opened.owned, key.address.host + RESTING)
        return opened if moved is None else opened._replace(owned=moved, resting=True)
    if key.address.kind == "unix":
        return opened
    opened.socket.shutdown(socket.SHUT_RD)  # TCP: from LISTEN to CLOSE, still bound; listen(2) undoes it
    # Two sockets that allow it may be bound to one address while none of them listens; nobody shall take this one.
    opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return opened._replace(resting=True)


def _serve(plan: Plan, opened: Open) -> Open:
    """Let everybody in that the plan allows, again if it rested."""
    owned = opened.owned
    if opened.resting and owned is not None:
        owned = sockets.move(owned, plan.key.address.host)
    elif opened.resting:
        opened.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.socket.listen(plan.backlog)
    if owned is not None and sockets.is_there(owned):
        os.chmod(owned.path, plan.mode)
    return opened._replace(owned=owned, resting=False)
