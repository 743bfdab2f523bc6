"""The listening sockets of all configurations in use: opened once, shared by configurations with the same address.

Accepts no connections: the sockets go to zygotes by message and to workers by fork.
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
    check_families,
    is_every,
    is_lost,
    key_of,
    number_of,
    open_planned,
    problem_of,
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
    """One socket as it is handed over, without the descriptor."""

    key: Key
    owned: PathId | None
    resting: bool
    lent: bool


class Listening(Record):
    """All sockets in order, the plans of each configuration, and the sockets passed at the start."""

    sockets: tuple[ListenerState, ...]
    plans: dict[Revision, tuple[Plan, ...]]
    passed: tuple[Passed, ...]


class Listeners:
    """Owns every listening socket of the daemon."""

    def __init__(self, unit: Unit = NO_UNIT) -> None:
        """`unit`: has the sockets that were passed, each for the listener of its name."""
        self._open: dict[Key, Open] = {}
        self._plans: dict[Revision, list[Plan]] = {}
        self._passed = unit.sockets
        # From a former process of the service. Sockets that the first configuration does not name are closed.
        self._stored = unit.stored(STORE_KIND)
        self._handed: dict[str, int] = {}
        self._sealed = False

    def prepare(self, revision: Revision, wanted: Mapping[str, ListenerSettings]) -> list[str]:
        """Open the addresses in `wanted` that are not open yet: all or none. Returns warnings.

        Open sockets stay unchanged until `adopt`. Raises `SystemRefused`, `ConfigInvalid`.
        """
        self._check_passed(wanted)
        plans = self._plan(wanted)
        fresh: dict[Key, Open] = {}
        try:
            for plan in plans:
                if plan.key not in self._open and plan.key not in fresh:
                    check_families(plan, self._open)
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
        """Put these configurations in force: apply the newest one's backlogs and modes. Sockets that none of them names
        rest: they stay bound for a rollback, but refuse connections, and those in their backlogs are reset.
        """
        plans = {plan.key: plan for revision in sorted(revisions) for plan in self._plans.get(revision, [])}
        for key, opened in self._open.items():
            plan = plans.get(key)
            self._open[key] = rest(key, opened) if plan is None else serve(plan, opened)

    def of(self, revision: Revision, names: Sequence[str]) -> list[tuple[str, socket.socket]]:
        """Return name and socket of each address of these listeners, in order; no names: of all listeners."""
        return [
            (plan.name, self._open[plan.key].socket)
            for plan in self._plans.get(revision, [])
            if not names or plan.name in names
        ]

    def left_over(self, revision: Revision, names: Sequence[str]) -> list[int]:
        """Return the positions in `of` of the lent sockets, whose backlogs are left to the next daemon."""
        plans = [plan for plan in self._plans.get(revision, []) if not names or plan.name in names]
        return [place for place, plan in enumerate(plans) if self._open[plan.key].lent]

    def to_store(self) -> dict[str, int]:
        """Return the descriptors that a service manager should keep for the next daemon, by names in its store."""
        if self._sealed:
            return self._handed
        named = {store_name(key): opened for key, opened in self._open.items() if not opened.lent}
        return {name: opened.socket.fileno() for name, opened in named.items() if name and not opened.resting}

    def hand_over(self, stored: Container[str]) -> None:
        """Leave the sockets under these names to the store, because this daemon ends and another one starts."""
        for key, opened in self._open.items():
            if store_name(key) in stored:
                self._open[key] = opened._replace(lent=True, owned=None)
                self._handed[store_name(key)] = opened.socket.fileno()

    def drop(self, revision: Revision) -> None:
        """Forget a configuration; close sockets that no other one names. Connections in their backlogs are reset."""
        self._plans.pop(revision, None)
        needed = {plan.key for plans in self._plans.values() for plan in plans}
        for key in self._open.keys() - needed:
            self._open.pop(key).close()

    def seal(self) -> None:
        """Refuse new connections; those in the backlogs can still be accepted. Sockets of the environment stay
        unchanged: systemd goes on listening on them, and their backlogs are for the next daemon.
        """
        self._sealed = True
        for opened in self._open.values():
            if not opened.lent:
                try:
                    sockets.seal(opened.socket, opened.owned)
                except OSError:
                    # If the kernel refuses, some late clients get a reset; the stop has to go on.
                    continue

    def close_emptied(self) -> bool:
        """After `seal`: give up the ports with an empty backlog, in every process. False: all are given up.

        The workers have the same sockets; otherwise the address would be taken until the last request is over.
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
        """Close all sockets and remove their paths."""
        for opened in self._open.values():
            opened.close()
        self._open.clear()
        self._plans.clear()

    def save(self, table: FdTable) -> Listening:
        """Return what another program needs to go on with these sockets; they stay unchanged."""
        saved = []
        for number, (key, opened) in enumerate(self._open.items()):
            table.give(f"listener {number}", opened.socket.fileno())
            saved.append(ListenerState(key, opened.owned, opened.resting, opened.lent))
        by_number = {one.fd for one in self._passed}
        by_number |= {key.address.port for key in self._open if key.address.kind == "fd"}
        for fd in by_number:  # configuration or manager refer to these by number
            table.give(f"lent {fd}", fd)
        plans = {revision: tuple(plans) for revision, plans in self._plans.items()}
        return Listening(tuple(saved), plans, self._passed)

    @classmethod
    def restore(cls, listening: Listening, table: FdTable) -> Listeners:
        """Restore what `save` returned. Raises `Unsupported`, `OSError`."""
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
        """Keep listening sockets from orphans for listeners of the same address; close all other descriptors."""
        for fd in fds:
            with socket.socket(fileno=os.dup(fd)) as found:
                listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                name = store_name(Key(sockets.parse_address(sockets.describe(found)))) if listens else ""
            if name and name not in self._stored:
                self._stored[name] = fd
            else:
                discard([fd], CLOSE)

    def complete(self, unit: Unit) -> None:
        """After a daemon's death: open planned sockets that no orphan has brought, and undo the effects of a stop.

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
        """Close the daemon's descriptors only: the daemon ends by a bug, and the workers go on with the sockets."""
        discard((opened.socket.detach() for opened in self._open.values()), CLOSE)
        self._open.clear()
        self._plans.clear()

    def announced(self) -> list[str]:
        """Return the log lines with the address and the families of each socket."""
        names = {plan.key: plan.name for _, plans in sorted(self._plans.items()) for plan in plans}
        return [
            f"listening on {sockets.describe(opened.socket)} ({names[key]})" + (f", {told}" if told else "")
            for key, opened in self._open.items()
            if not opened.resting
            for told in [sockets.families(opened.socket)]
        ]

    def urls(self, secure: Container[str]) -> str:
        """Return the URLs for clients, as a text for a person. `secure`: names of the listeners with TLS."""
        return ", ".join(
            one["address"]
            if one["address"].startswith("unix:")
            else f"http{'s' * (one['name'] in secure)}://{one['address']}"
            for one in self.described()
        )

    def described(self) -> list[dict[str, str]]:
        """Return name and address of each socket (with the port chosen by the kernel) by the newest configuration, and
        the problem and remedy if clients cannot reach it.
        """
        names = {plan.key: plan.name for _, plans in sorted(self._plans.items()) for plan in plans}
        return [
            {"name": names[key], "address": sockets.describe(opened.socket)} | trouble_of(opened)
            for key, opened in self._newest()
        ]

    def lost(self, *, shut: bool = False) -> list[str]:
        """Return the problems of sockets that a reload has to replace; `shut`: only of sockets that a process has shut
        down. Returns none of these after `seal`, because a stop shuts the ports down.
        """
        if shut and self._sealed:
            return []
        return [
            f"{sockets.describe(opened.socket)}: {problem_of(opened)}"
            for _, opened in self._newest()
            if is_lost(opened) and (sockets.is_shut(opened.socket) or not shut)
        ]

    def _newest(self) -> Iterable[tuple[Key, Open]]:
        """Return the socket that clients of each address reach. One that it has replaced stays open until the
        generations that have it are gone.
        """
        return {
            (key.address, key.whose): (key, opened) for key, opened in self._open.items() if not opened.resting
        }.values()

    def mend(self) -> list[str]:
        """Listen again on sockets that another process has shut down. Returns their addresses."""
        plans = {plan.key: plan for _, plans in sorted(self._plans.items()) for plan in plans}
        mended = []
        for key, opened in list(self._open.items()):
            unasked = opened.resting or self._sealed or opened.socket.family == socket.AF_UNIX or key not in plans
            if unasked or not sockets.is_shut(opened.socket):
                continue
            if sockets.listens(opened.socket, plans[key].backlog):
                mended.append(sockets.describe(opened.socket))
            elif not opened.lent:
                sockets.end(opened.socket)  # frees the address for a new socket; `lost` reports this one
                self._open[key] = opened._replace(spent=True)
        return mended

    def _plan(self, wanted: Mapping[str, ListenerSettings]) -> list[Plan]:
        """Return the plans of a configuration. Raises `ConfigInvalid`."""
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
        """Return the key of the address's socket, or of a new one if that socket must be replaced."""
        turns = [known.turn for known in self._open if known._replace(turn=0) == key]
        latest = key._replace(turn=max(turns, default=0))
        return latest._replace(turn=latest.turn + 1) if turns and is_lost(self._open[latest]) else latest

    def _check_passed(self, wanted: Mapping[str, ListenerSettings]) -> None:
        """Raise `ConfigInvalid` if the first configuration has no listener for a socket that was passed."""
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
        """Return the keys of the sockets that were passed for a listener; if there are none, of its addresses."""
        numbered = {text for one in wanted.values() for text in one.bind}
        names = (settings.name, "") if len(wanted) == 1 else (settings.name,)
        given = [one.fd for one in self._passed if one.name in names and f"fd:{one.fd}" not in numbered]
        return [Key(Address("fd", port=fd)) for fd in given] or [
            key_of(sockets.parse_address(text), f"{settings.name}.{place}") for place, text in enumerate(settings.bind)
        ]

    def _overruled(self, revision: Revision, settings: ListenerSettings) -> Iterator[str]:
        """Yield a warning if the listener's addresses are not used, because sockets were passed in their place."""
        plans = [plan for plan in self._plans[revision] if plan.name == settings.name]
        passed = [plan.key for plan in plans if str(plan.key.address) not in settings.bind]
        used = [sockets.describe(self._open[key].socket) for key in passed if key.address.kind == "fd"]
        meant = settings.bind != ListenerSettings._field_defaults["bind"]
        if used and meant and {str(sockets.parse_address(text)) for text in settings.bind} != set(used):
            bind = ", ".join(settings.bind)
            yield f"listener {settings.name}: bind ({bind}) is not used: systemd passed {', '.join(used)}"

    def _close_stored(self) -> None:
        """Close stored sockets: duplicates of open ones, and unused ones, which would go on listening."""
        discard(self._stored.values(), CLOSE)
        self._stored = {}

    def _find(self, plan: Plan) -> Open | None:
        """Return the socket of this address that a former process has left in the fd store."""
        fd = self._stored.get(store_name(plan.key))
        if fd is None:
            return None
        opened = sockets.open_listener(Address("fd", port=fd), plan.backlog, plan.mode)
        owned = socket_files.path_id(opened)
        lost = plan.key.address.kind == "unix" and owned is None and not plan.key.address.host.startswith("@")
        if lost or not sockets.unseal(opened):  # clients could not reach it
            Open(opened, owned).close()
            return None
        return Open(opened, owned)


def named(refusal: SrvdError) -> SrvdError:
    """Return the refusal of an address in use with a hint: the processes that use it, and what to do about them."""
    busy = str(refusal.detail.get("busy", ""))
    if not busy:
        return refusal
    from srvd.linux.holders import holders, spell

    found = holders(sockets.parse_address(busy))
    found = [one for one in found if one.title.startswith("srvd: daemon")] or found  # the daemon without its workers
    if not found:
        return refusal
    hint = f"{spell(found)} has it"
    titles = " ".join(one.title for one in found)
    if "srvd: daemon" in titles:
        hint += ": stop that daemon, or bind another port; if its control socket was removed, `kill -HUP` makes it anew"
    elif "srvd: zygote" in titles or "srvd: worker" in titles:
        hint += "; a daemon that died has left them, and its files are gone: they leave after orphan_timeout"
    return SystemRefused(refusal.message, hint=hint, detail=refusal.detail)
