"""The listening sockets of all configurations in use: opened once, shared by those that name the same address.

Accepts nothing; the sockets go to zygotes by message and to workers by fork.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from srvd.config.settings import ListenerSettings
from srvd.core.model import Revision
from srvd.daemon.fd_table import FdTable
from srvd.daemon.listener import (
    CLOSE,
    STORE_KIND,
    Key,
    Open,
    Plan,
    is_every,
    is_lost,
    key_of,
    number_of,
    open_planned,
    rest,
    serve,
    store_name,
    trouble_of,
)
from srvd.errors import ConfigInvalid, SrvdError, SystemRefused
from srvd.linux import socket_files, sockets
from srvd.linux.fds import discard
from srvd.linux.socket_files import PathId
from srvd.linux.sockets import Address
from srvd.linux.systemd import Passed, Unit
from srvd.record import Record

__all__ = ["Listeners", "Listening", "named"]

NO_UNIT = Unit()


class ListenerState(Record):
    """One socket as it is handed over: all but the descriptor."""

    key: Key
    owned: PathId | None
    resting: bool
    lent: bool


class Listening(Record):
    """All of them, in order, what each configuration asks for, and what was passed at the start."""

    sockets: tuple[ListenerState, ...]
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
        plans = self._plan(wanted)
        fresh: dict[Key, Open] = {}
        try:
            for plan in plans:
                if plan.key not in self._open and plan.key not in fresh:
                    self._check_families(plan)
                    fresh[plan.key] = self._find(plan) or open_planned(plan)
        except BaseException:
            for opened in fresh.values():
                opened.close()
            raise
        self._open |= fresh
        self._plans[revision] = plans
        self._close_stored()
        overruled = [warning for settings in wanted.values() for warning in self._overruled(revision, settings)]
        return overruled + [
            f"listener {plan.name}: {plan.key.address} goes on with IPv6 only, as it was opened; "
            "stop srvd and start it for IPv4 as well"
            for plan in plans
            if plan.both and plan.key not in fresh and sockets.families(self._open[plan.key].socket) == "IPv6 only"
        ]

    def adopt(self, revisions: Sequence[Revision]) -> None:
        """These configurations are in force: the newest one's backlogs and modes hold, and sockets that none of them
        names rest: no connection gets in, but they stay bound for a rollback. What waits in such a backlog is reset.
        """
        plans = {plan.key: plan for revision in sorted(revisions) for plan in self._plans.get(revision, [])}
        for key, opened in self._open.items():
            plan = plans.get(key)
            self._open[key] = rest(key, opened) if plan is None else serve(plan, opened)

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
        named = {store_name(key): opened for key, opened in self._open.items() if not opened.lent}
        return {name: opened.socket.fileno() for name, opened in named.items() if name and not opened.resting}

    def hand_over(self, stored: Container[str]) -> None:
        """The daemon leaves and another one comes: what is stored under these names is the store's from now on."""
        for key, opened in self._open.items():
            if store_name(key) in stored:
                self._open[key] = opened._replace(lent=True, owned=None)
                self._handed[store_name(key)] = opened.socket.fileno()

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
            if not sockets.is_shut(opened.socket) and sockets.waiting(opened.socket):
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

    def save(self, table: FdTable) -> Listening:
        """What another program needs to go on with these sockets; they stay as they are."""
        saved = []
        for number, (key, opened) in enumerate(self._open.items()):
            table.give(f"listener {number}", opened.socket.fileno())
            saved.append(ListenerState(key, opened.owned, opened.resting, opened.lent))
        by_number = {one.fd for one in self._passed}
        by_number |= {key.address.port for key in self._open if key.address.kind == "fd"}
        for fd in by_number:  # its number is its name, in the configuration or by the manager
            table.give(f"lent {fd}", fd)
        plans = {revision: tuple(plans) for revision, plans in self._plans.items()}
        return Listening(tuple(saved), plans, self._passed)

    @classmethod
    def restore(cls, listening: Listening, table: FdTable) -> Listeners:
        """Go on with what `save` told. Raises `Unsupported`, `OSError`."""
        listeners = cls()
        listeners._passed = listening.passed
        for name in table.table:
            if name.startswith("lent "):
                table.take(name)
        for number, (key, owned, resting, lent) in enumerate(listening.sockets):
            found = socket.socket(fileno=table.take(f"listener {number}"))
            listeners._open[key] = Open(found, owned, resting, lent)
        listeners._plans = {revision: list(plans) for revision, plans in listening.plans.items()}
        return listeners

    def inherit(self, fds: Iterable[int]) -> None:
        """Sockets that orphans brought, for whoever listens at their addresses from now on; the rest is closed."""
        for fd in fds:
            with socket.socket(fileno=os.dup(fd)) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                name = store_name(Key(sockets.parse_address(sockets.describe(found)))) if listens else ""
            if name and name not in self._stored:
                self._stored[name] = fd
            else:
                discard([fd], CLOSE)

    def complete(self, unit: Unit) -> None:
        """Of a daemon that died: open what plans name and nobody has brought, and undo what a stop under way had done.

        Raises `SystemRefused`.
        """
        self._stored = unit.stored(STORE_KIND)
        for opened in self._open.values():
            if opened.socket.family != socket.AF_UNIX and not sockets.unseal(opened.socket):
                sockets.end(opened.socket)  # `lost` names it, and a reload opens the address anew
        for plans in self._plans.values():
            for plan in plans:
                if plan.key not in self._open:
                    self._open[plan.key] = self._find(plan) or open_planned(plan)
        self._close_stored()

    def abandon(self) -> None:
        """Let go of them as they are: the daemon ends by a bug, and the workers go on with them."""
        discard((opened.socket.detach() for opened in self._open.values()), CLOSE)
        self._open.clear()
        self._plans.clear()

    def announced(self) -> list[str]:
        """The lines of a log that say where each listens, and for which families."""
        names = {plan.key: plan.name for _, plans in sorted(self._plans.items()) for plan in plans}
        return [
            f"listening on {sockets.describe(opened.socket)} ({names[key]})" + (f", {told}" if told else "")
            for key, opened in self._open.items()
            if not opened.resting
            for told in [sockets.families(opened.socket)]
        ]

    def urls(self, secure: Container[str]) -> str:
        """Where a client may ask, for a person; `secure` are the listeners that speak TLS."""
        return ", ".join(
            one["address"]
            if one["address"].startswith("unix:")
            else f"http{'s' * (one['name'] in secure)}://{one['address']}"
            for one in self.described()
        )

    def described(self) -> list[dict[str, str]]:
        """Name and address (with the port that the kernel chose) of each socket, by the newest configuration, and the
        problem, if no client finds it, with its remedy.
        """
        names = {plan.key: plan.name for _, plans in sorted(self._plans.items()) for plan in plans}
        latest = {(key.address, key.whose): key for key, opened in self._open.items() if not opened.resting}
        told = {
            key: {"name": names[key], "address": sockets.describe(self._open[key].socket)} for key in latest.values()
        }
        return [one | trouble_of(self._open[key]) for key, one in told.items()]

    def lost(self, *, shut: bool = False) -> list[str]:
        """What is wrong with those that have to be made anew, by a reload; `shut`: that a process has shut down. After
        `seal` that is no fault: a stop gives the ports up by shutting them down.
        """
        if shut and self._sealed:
            return []
        lost = {
            sockets.describe(opened.socket)
            for opened in self._open.values()
            if is_lost(opened) and (sockets.is_shut(opened.socket) or not shut)
        }
        return [f"{one['address']}: {one['problem']}" for one in self.described() if one["address"] in lost]

    def mend(self) -> list[str]:
        """Listen again on what another process has shut down; which that were."""
        plans = {plan.key: plan for _, plans in sorted(self._plans.items()) for plan in plans}
        mended = []
        for key, opened in list(self._open.items()):
            unasked = opened.resting or self._sealed or opened.socket.family == socket.AF_UNIX or key not in plans
            if unasked or not sockets.is_shut(opened.socket):
                continue
            if sockets.listens(opened.socket, plans[key].backlog):
                mended.append(sockets.describe(opened.socket))
            elif not opened.lent:
                sockets.end(opened.socket)  # so that another one can be bound there; `lost` tells of it
                self._open[key] = opened._replace(spent=True)
        return mended

    def _plan(self, wanted: Mapping[str, ListenerSettings]) -> list[Plan]:
        """What a configuration asks for. Raises `ConfigInvalid`."""
        keys = {name: [self._latest(key) for key in self._keys(one, wanted)] for name, one in wanted.items()}
        of_ipv4 = {key.address.port for some in keys.values() for key in some if key.address.kind == "inet"} - {0}
        return [
            Plan(
                name, key, settings.backlog, int(settings.mode, 8), settings.reuse_port,
                number_of(name, "owner", settings.owner), number_of(name, "group", settings.group),
                is_every(key.address) and key.address.port not in of_ipv4,
            )
            for name, settings in wanted.items()
            for key in keys[name]
        ]  # fmt: skip

    def _latest(self, key: Key) -> Key:
        """The socket that this address has, or the one that is to be made in its place."""
        turns = [known.turn for known in self._open if known._replace(turn=0) == key]
        latest = key._replace(turn=max(turns, default=0))
        return latest._replace(turn=latest.turn + 1) if turns and is_lost(self._open[latest]) else latest

    def _check_families(self, plan: Plan) -> None:
        """A socket of ours may stand in the way of another one, and cannot be changed. Raises `SystemRefused`."""
        address = plan.key.address
        for key, opened in self._open.items():
            other = key.address
            if other.port != address.port or not address.port or other == address:
                continue
            if plan.both and other.kind == "inet":
                told, hint = f"this daemon has its port for IPv4, as {other}", f"name {other} as well, or stop"
            elif address.kind == "inet" and sockets.families(opened.socket) == "IPv4 as well":
                told, hint = f"{other} of this daemon serves IPv4 as well", "leave it out, or stop"
            else:
                continue
            raise SystemRefused(f"listen on {address}: {told}; nothing was changed", hint=f"{hint} srvd and start it")

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
            key_of(sockets.parse_address(text), f"{settings.name}.{place}") for place, text in enumerate(settings.bind)
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
        discard(self._stored.values(), CLOSE)
        self._stored = {}

    def _find(self, plan: Plan) -> Open | None:
        """The socket of this address that a former process has left in the fd store."""
        fd = self._stored.get(store_name(plan.key))
        if fd is None:
            return None
        opened = sockets.open_listener(Address("fd", port=fd), plan.backlog, plan.mode)
        owned = socket_files.path_id(opened)
        lost = plan.key.address.kind == "unix" and owned is None and not plan.key.address.host.startswith("@")
        if lost or not sockets.unseal(opened):  # nobody would find it
            Open(opened, owned).close()
            return None
        return Open(opened, owned)


def named(refusal: SrvdError) -> SrvdError:
    """The refusal of an address that is in use, with those who use it, and what can be done about it."""
    busy = str(refusal.detail.get("busy", ""))
    if not busy:
        return refusal
    from srvd.linux.holders import holders, spell

    found = holders(sockets.parse_address(busy))
    found = [one for one in found if one.title.startswith("srvd: daemon")] or found  # not its workers, too
    if not found:
        return refusal
    hint = f"{spell(found)} has it"
    titles = " ".join(one.title for one in found)
    if "srvd: daemon" in titles:
        hint += ": stop that daemon, or bind another port; if its control socket was removed, `kill -HUP` makes it anew"
    elif "srvd: zygote" in titles or "srvd: worker" in titles:
        hint += "; a daemon that died has left them, and its files are gone: they leave after orphan_timeout"
    return SystemRefused(refusal.message, hint=hint, detail=refusal.detail)
