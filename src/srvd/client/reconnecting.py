"""A connection that outlives the daemon's program: connects again after an upgrade, and goes on with the request.

Prints nothing. `connection.py` is a single connection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from srvd.client.connection import Client, OnProgress
from srvd.errors import NoDaemon, ShuttingDown, SrvdError
from srvd.wire.commands import Command

__all__ = ["ReconnectingClient"]

RECONNECT = 60.0
"""Seconds for the next program to greet the client. A program that hangs is replaced by the former one after half of
this; others need milliseconds."""

MOST = 100
"""Most upgrades during one request; more are taken for an endless loop."""


class ReconnectingClient:
    """Connects when it is made. Raises what `Client.connect` raises."""

    def __init__(self, path: str) -> None:
        self.client = Client.connect(path)
        self.operation = 0  # that the request waits for

    def __enter__(self) -> ReconnectingClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.client.close()

    def ask(self, entry: Command, args: Mapping[str, Any], deadline: float, on_progress: OnProgress) -> dict[str, Any]:
        """Returns the answer, also if an upgrade replaces the daemon's program meanwhile.

        Orders are sent with a key: an order that is sent again, because the former program may not have read it, is
        carried out once. Raises what `Client.call` raises.
        """
        idem = os.urandom(8).hex() if entry.changes else ""

        def note(progress: Mapping[str, Any]) -> None:
            self.operation = progress["operation"]
            on_progress(progress)

        method = entry.name
        for _ in range(MOST):
            try:
                return self.client.call(method, args, deadline=deadline, idem=idem, on_progress=note)
            except (ShuttingDown, NoDaemon) as exc:
                self._renew(exc)
            if self.operation:
                method, args, idem = "op.wait", {"id": self.operation}, ""
        raise ShuttingDown(f"{entry.name}: the daemon's program was replaced {MOST} times meanwhile")

    def watch(self, topics: Sequence[str], since: int, *, follow: bool) -> Iterator[dict[str, Any]]:
        """Yields events as `Client.watch` does, each once over all connections."""
        while True:
            try:
                yield from self.client.watch(topics, since, follow=follow)
            except (ShuttingDown, NoDaemon) as exc:
                if self.client.position >= 0:
                    since = self.client.position
                self._renew(exc)
            else:
                return

    def _renew(self, goodbye: ShuttingDown | NoDaemon) -> None:
        """Connects to the next program. Raises `goodbye` if the daemon is not being upgraded.

        The `bye` of an upgrade is lost if the client had not read all before it. Then the daemon that answers now is
        the same one if it greets with the same instance.
        """
        told = goodbye.detail.get("reason") == "upgrade"
        if not told and (isinstance(goodbye, ShuttingDown) or not self.client.ended):
            raise goodbye
        try:
            client = Client.connect(self.client.path, RECONNECT)
        except SrvdError:
            if told:
                raise
            raise goodbye from None
        if not told and client.hello.instance != self.client.hello.instance:
            client.close()
            raise goodbye
        self.client.close()
        self.client = client
        self.client.watch_exit()
