"""A connection to the daemon that outlives the daemon's program: after an upgrade it is made anew, and nothing is lost.

Prints nothing. What one connection can do is in connection.py.
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
"""Seconds that the next program has to greet us: it is a matter of milliseconds, but one that hangs gives way to the
former one only after half of this."""

MOST = 100
"""Upgrades during one request: more are a loop."""


class ReconnectingClient:
    """Connects at once. Raises what `Client.connect` does."""

    def __init__(self, path: str) -> None:
        self.client = Client.connect(path)
        self.operation = 0  # that the request waits for

    def __enter__(self) -> ReconnectingClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.client.close()

    def ask(self, entry: Command, args: Mapping[str, Any], deadline: float, on_progress: OnProgress) -> dict[str, Any]:
        """The answer, whichever program gives it. An order has a key, so that it is carried out once even if nobody can
        say whether the former program had read it. Raises what `Client.call` does."""
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
        """Events as `Client.watch` has them, each once."""
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
        """Connect to the next program. Raises `goodbye` if there is none to come.

        Whoever had not read all that he was sent has not got the farewell either. Then it is the same daemon if the one
        that is there by now says so.
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
