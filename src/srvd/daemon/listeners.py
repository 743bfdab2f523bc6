"""The listening sockets of all configurations in use: opened once, shared by those that name the same address.

Accepts nothing; the sockets go to zygotes by message and to workers by fork.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from srvd.config.settings import ListenerSettings
from srvd.core.model import Revision
from srvd.linux import sockets
from srvd.linux.sockets import Address, PathId

__all__ = ["Listeners"]

RESTING = ".resting"
"""Ends the path of a Unix socket that no configuration in force names."""


class Open(NamedTuple):
    """One socket; `owned` is its file, for Unix sockets that this daemon bound."""

    socket: socket.socket
    owned: PathId | None

    def close(self) -> None:
        if self.owned is not None:
            sockets.unlink(self.owned)
        self.socket.close()


class Plan(NamedTuple):
    """What one configuration asks of one address."""

    name: str
    address: Address
    backlog: int
    mode: int


class Listeners:
    """Owns every listening socket of the daemon."""

    def __init__(self) -> None:
        self._open: dict[Address, Open] = {}
        self._plans: dict[Revision, list[Plan]] = {}
        self._resting: set[Address] = set()

    def prepare(self, revision: Revision, wanted: Mapping[str, ListenerSettings]) -> None:
        """Open what `wanted` names and is not open yet: all of it or nothing.

        A socket that is open stays as it is until `adopt`. Raises `SystemRefused`, `ConfigInvalid`.
        """
        plans = [
            Plan(name, sockets.parse_address(text), settings.backlog, int(settings.mode, 8))
            for name, settings in wanted.items()
            for text in settings.bind
        ]
        fresh: dict[Address, Open] = {}
        try:
            for plan in plans:
                if plan.address not in self._open and plan.address not in fresh:
                    fresh[plan.address] = _open(plan)
        except BaseException:
            for opened in fresh.values():
                opened.close()
            raise
        self._open |= fresh
        self._plans[revision] = plans

    def adopt(self, revisions: Sequence[Revision]) -> None:
        """These configurations are in force: the newest one's backlogs and modes hold, and sockets that none of them
        names rest: no connection gets in, but they stay bound for a rollback. What waits in such a backlog is reset.
        """
        plans = {plan.address: plan for revision in sorted(revisions) for plan in self._plans.get(revision, [])}
        for address, opened in self._open.items():
            plan = plans.get(address)
            if plan is None:
                self._rest(address, opened)
                continue
            self._wake(address, opened)
            opened.socket.listen(plan.backlog)
            if opened.owned is not None and sockets.path_id(opened.socket) == opened.owned:
                os.chmod(opened.owned.path, plan.mode)

    def _rest(self, address: Address, opened: Open) -> None:
        if address in self._resting or address.kind == "fd" or (opened.owned is None and address.port == 0):
            return  # a port that the kernel chose would be another one afterwards
        if opened.owned is not None:
            os.rename(opened.owned.path, opened.owned.path + RESTING)
        else:
            opened.socket.shutdown(socket.SHUT_RD)  # TCP: from LISTEN to CLOSE, still bound; listen(2) undoes it
        self._resting.add(address)

    def _wake(self, address: Address, opened: Open) -> None:
        if address in self._resting:
            self._resting.discard(address)
            if opened.owned is not None:
                os.rename(opened.owned.path + RESTING, opened.owned.path)

    def of(self, revision: Revision, names: Sequence[str]) -> list[tuple[str, socket.socket]]:
        """Name and socket of each address of these listeners, in order; no names: of all of them."""
        return [
            (plan.name, self._open[plan.address].socket)
            for plan in self._plans.get(revision, [])
            if not names or plan.name in names
        ]

    def drop(self, revision: Revision) -> None:
        """Forget a configuration, and close what no other one names. What waits in a closed backlog is reset."""
        self._plans.pop(revision, None)
        needed = {plan.address for plans in self._plans.values() for plan in plans}
        for address in self._open.keys() - needed:
            opened = self._open.pop(address)
            self._wake(address, opened)  # its path is removed under its own name
            opened.close()

    def seal(self) -> None:
        """Let no new connection in; what waits can still be accepted. Sockets of the environment stay as they are:
        systemd goes on listening on them, and what waits there is for the next daemon.
        """
        for address, opened in self._open.items():
            if address.kind != "fd":
                try:
                    sockets.seal(opened.socket, opened.owned)
                except OSError:
                    # A filter that the kernel refuses costs some late clients a reset; the stop has to go on.
                    continue

    def close(self) -> None:
        """Close all of them and remove their paths."""
        for address, opened in self._open.items():
            self._wake(address, opened)
            opened.close()
        self._open.clear()
        self._plans.clear()

    def described(self) -> list[dict[str, str]]:
        """Name and address (with the port that the kernel chose) of each socket, by the newest configuration."""
        names = {plan.address: plan.name for _, plans in sorted(self._plans.items()) for plan in plans}
        return [
            {"name": names[address], "address": sockets.describe(opened.socket)}
            for address, opened in self._open.items()
            if address not in self._resting
        ]


def _open(plan: Plan) -> Open:
    opened = sockets.open_listener(plan.address, plan.backlog, plan.mode)
    return Open(opened, None if plan.address.kind == "fd" else sockets.path_id(opened))
