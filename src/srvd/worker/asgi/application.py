"""The application by the convention of ASGI, with what all its requests in one worker share.

Calls nothing by itself: an `HttpCycle` does, for one request.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from srvd.worker.app.dropped_fields import DroppedFields
from srvd.worker.app.hooks import Hook

if TYPE_CHECKING:
    from srvd.log import Log

__all__ = ["AsgiApp", "AsgiApplication"]

AsgiApp = Callable[[dict[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[object]]
"""The calling convention of ASGI 3.0: takes scope, receive and send."""


class AsgiApplication:
    """`call` is the application itself, `stamp` returns the Server and Date lines of a response that is made now."""

    def __init__(
        self,
        call: AsgiApp,
        loop: AbstractEventLoop,
        before_request: Hook | None,
        log: Log,
        stamp: Callable[[], bytes],
    ) -> None:
        self.call = call
        self.loop = loop
        self.before_request = before_request
        self.log = log
        self.stamp = stamp
        self.state: dict[str, Any] | None = None
        """What lifespan has left for requests; None: the application has no lifespan."""
        self.variables: Context = copy_context()
        """The context variables of the lifespan; each request runs in a copy of its own."""
        self.unsent: list[Any] = []
        """Responses that were begun and have nothing on the wire yet."""
        self.dropped_fields = DroppedFields(log)
