"""The interface between a worker and its application, for every calling convention: a `Convention` for the worker, and
a `Responder` for each request.

`worker/wsgi/` implements both for WSGI.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple, Protocol

from srvd.http.h1.head import Request
from srvd.http.h1.sink import Sink
from srvd.worker.net.bodies.spool import BodySpool
from srvd.worker.net.bodies.stream import BodyStream
from srvd.worker.net.file_span import Span
from srvd.worker.observe.completion import Response

__all__ = ["Body", "CallConvention", "Convention", "Push", "Reply", "Responder"]

Body = BodySpool | BodyStream | None
"""A request body that the worker has received, or that the application reads from the connection; None: the body, if
there is one, is `Request.whole`.
"""


class Responder(Response, Protocol):
    """Makes the response of one request, from the call of the application to the end.

    The connection calls `start()`, then `more()` until `ended`; each returns bytes to send, perhaps none. If the client
    is gone, the connection calls `abandon()` instead. One thread makes all these calls, in one context.
    """

    keep_alive: bool
    """Whether the connection can take another request, once `ended`."""
    ended: bool
    span: Span | None
    """A part of a file to send after the bytes. The connection must close the descriptor."""

    @property
    def must_reset(self) -> bool:
        """Whether only a reset shows the client that the body is incomplete, since its end is the connection's end.
        False if `keep_alive`.
        """

    @property
    def endless(self) -> bool:
        """Whether the response ends with the connection, which the kernel must reset if the worker is killed before."""

    def start(self) -> bytes:
        """Calls the application, and returns the first bytes of its response. Does not raise."""

    def more(self) -> bytes:
        """Returns the next bytes of the response; b"" if there are none now. Does not raise."""

    def abandon(self) -> None:
        """Ends the response early, because the client is gone."""


Push = Callable[[Responder, bytes], None]
"""Sends bytes that an application gives outside of `start` and `more`. Raises `ReaderGone`."""


class Reply(NamedTuple):
    """The facts of a response to a request that the worker itself has made."""

    code: int
    status: str  # as the application spelt it
    fields: str  # "Name: value\r\n" …
    failure: str  # the traceback, if the application failed; else ""


class Convention(Protocol):
    """A calling convention, and the application that is called by it; chosen when the application is loaded."""

    sink: Sink
    """Makes the scopes of requests."""
    streams: bool
    """Whether the application reads long bodies from the connection; else they are kept until they are complete."""
    variables: Context
    """The context variables of the worker when it became ready; each request runs in a copy of its own."""

    def ask(self, request: Request, replied: Callable[[Reply], None]) -> None:
        """Calls the application for a request without a body, which the worker itself makes, and calls `replied` with
        the reply, at once or later.
        """


class CallConvention(Convention, Protocol):
    """A convention whose applications make a response while they are called."""

    responder: Callable[[Request, Body, Push], Responder]
    """Makes the responder of a request. Arguments: request, body, function that sends beside the response."""
