"""Calls what follows the end of a request: the access log, the hook after_request, the count of requests.

Does none of this itself. A worker that needs none of it has no `Completion`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from srvd.http.access_line import Record
from srvd.http.h1.refusal import REASONS
from srvd.worker.app.hooks import Hook, call

if TYPE_CHECKING:
    from srvd.http.h1.head import Request
    from srvd.http.h1.sink import Scope
    from srvd.log import Log
    from srvd.worker.observe.access_log import AccessLog
    from srvd.worker.recycling import Recycling

__all__ = ["Completion", "Response"]


class Response(Protocol):
    """The facts of a response that has ended, for every calling convention."""

    request: Request
    head_size: int  # bytes of the head

    @property
    def code(self) -> int:
        """The status."""

    @property
    def fields(self) -> str:
        """The header fields as text, one on each line."""


class Completion:
    """Called on the thread that has served the request. Each part may be None."""

    __slots__ = ("_access", "_after", "_log", "_recycling")

    def __init__(self, access: AccessLog | None, after: Hook | None, recycling: Recycling | None, log: Log) -> None:
        self._access = access
        self._after = after
        self._recycling = recycling
        self._log = log

    @classmethod
    def needed(
        cls, access: AccessLog | None, after: Hook | None, recycling: Recycling | None, log: Log
    ) -> Completion | None:
        """Returns a `Completion`; None if it would have nothing to do."""
        if recycling is not None and not recycling.counts:
            recycling = None
        idle = access is None and after is None and recycling is None
        return None if idle else cls(access, after, recycling, log)

    def ended(self, response: Response, sent: int, began: float, now: float) -> None:
        """Handles the end of an application's response, whole or given up; `sent` are its bytes, with the head."""
        sent = max(sent - response.head_size, 0)
        took = now - began
        scope = response.request.scope
        if self._access is not None:
            self._access.add(Record(scope, response.code, response.fields, sent, time.time() - took, took))
        if self._after is not None:
            call(self._after, "after_request", self._log, scope, response.code, sent, took)
        if self._recycling is not None:
            self._recycling.served(now)

    def refused(self, scope: Scope, status: int) -> None:
        """Handles a request that never reached the application: only the access log records it."""
        if self._access is not None:
            sent = len(f"{status} {REASONS[status]}\n")
            self._access.add(Record(scope, status, "", sent, time.time(), 0.0))
