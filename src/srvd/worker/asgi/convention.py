"""ASGI as the calling convention of a worker: the sink of its requests, and requests of its own.

Knows no connection. A connection makes an `HttpCycle` for each request; `ask` makes one without a connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from srvd.worker.asgi.http import HttpCycle
from srvd.worker.asgi.scope import ScopeSink
from srvd.worker.net.responder import Reply

if TYPE_CHECKING:
    from contextvars import Context

    from srvd.http.h1.head import Request
    from srvd.http.h1.sink import Sink
    from srvd.worker.asgi.application import AsgiApplication
    from srvd.worker.net.file_span import Span

__all__ = ["Asgi"]

# Bytes read of a reply: a health page is short, and the rest of an endless one does not matter.
_LONGEST = 1 << 20


class Asgi:
    """A `Convention`."""

    streams = True

    def __init__(self, application: AsgiApplication, worker: str, root_path: str = "") -> None:
        self.sink: Sink = ScopeSink(worker, root_path)
        self.application = application

    @property
    def variables(self) -> Context:
        return self.application.variables

    @variables.setter
    def variables(self, variables: Context) -> None:
        self.application.variables = variables

    def ask(self, request: Request, replied: Callable[[Reply], None]) -> None:
        """Calls the application for a request without a body, and calls `replied` with the reply when it has come."""
        asked = _Asked(replied)
        cycle = HttpCycle(self.application, request, asked, time.monotonic())
        asked.cycle = cycle
        cycle.begin()


class _Asked:
    """A `Wire` that drops the bytes."""

    def __init__(self, replied: Callable[[Reply], None]) -> None:
        self._replied: Callable[[Reply], None] | None = replied
        self.cycle: HttpCycle | None = None  # a strong reference: asyncio has none

    def send(self, cycle: HttpCycle, data: bytes) -> bool:
        if cycle.sent > _LONGEST and not cycle.ended:
            self.over(cycle)
            cycle.lose()
        return True

    def send_file(self, cycle: HttpCycle, before: bytes, span: Span, after: bytes) -> bool:
        os.close(span.fd)
        return True

    def has_room(self) -> bool:
        return True

    def want_body(self, cycle: HttpCycle) -> None:
        """Does nothing: there is no body."""

    def streams(self, cycle: HttpCycle) -> None:
        """Does nothing: the health probe has a time of its own."""

    def over(self, cycle: HttpCycle) -> None:
        replied, self._replied = self._replied, None
        if replied is not None:
            replied(Reply(cycle.code, cycle.status, cycle.fields, cycle.failure))

    def done(self, cycle: HttpCycle) -> None:
        self.cycle = None
