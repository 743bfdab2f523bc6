"""What is done when a request has ended, besides answering it: a line in the access log, a hook, the count of them.

Does nothing of that itself. A worker for which nothing is to be done has no witness.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from srvd.http.access_format import Record
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
    """What is known of a response that has ended, whatever the calling convention of its application."""

    request: Request
    code: int  # the status
    sent: int  # bytes
    head_size: int  # bytes of these that are the head

    @property
    def fields(self) -> str:
        """The header fields as text, a line each."""


class Completion:
    """Called on the thread that has served the request. Each part may be missing."""

    __slots__ = ("_access", "_after", "_log", "_wear")

    def __init__(self, access: AccessLog | None, after: Hook | None, wear: Recycling | None, log: Log) -> None:
        self._access = access
        self._after = after
        self._wear = wear
        self._log = log

    @classmethod
    def needed(
        cls, access: AccessLog | None, after: Hook | None, wear: Recycling | None, log: Log
    ) -> Completion | None:
        """One if there is anything to do for it."""
        if wear is not None and not wear.counts:
            wear = None
        idle = access is None and after is None and wear is None
        return None if idle else cls(access, after, wear, log)

    def ended(self, response: Response, began: float, now: float) -> None:
        """The response of the application has ended, or was given up."""
        sent = max(response.sent - response.head_size, 0)
        took = now - began
        scope = response.request.scope
        if self._access is not None:
            self._access.add(Record(scope, response.code, response.fields, sent, time.time() - took, took))
        if self._after is not None:
            call(self._after, "after_request", self._log, scope, response.code, sent, took)
        if self._wear is not None:
            self._wear.served(now)

    def refused(self, scope: Scope, status: int) -> None:
        """A request never reached the application; no hook and no count knows of it."""
        if self._access is not None:
            sent = len(f"{status} {REASONS[status]}\n")
            self._access.add(Record(scope, status, "", sent, time.time(), 0.0))
