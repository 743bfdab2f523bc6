"""The interface between a connection and the application: one object for each request, for every calling convention.

`worker/wsgi/exchange.py` implements it for WSGI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from srvd.http.h1.head import Request
from srvd.worker.net.body_spool import BodySpool
from srvd.worker.net.body_stream import BodyStream
from srvd.worker.net.file_span import Span
from srvd.worker.observe.completion import Response

__all__ = ["Body", "Push", "Responder"]

Body = BodySpool | BodyStream | None
"""A request body that the worker has received, or that the application reads from the connection; None: the body, if
there is one, is `Request.whole`.
"""


class Responder(Response, Protocol):
    """Makes the response of one request, from the call of the application to the end.

    The connection calls `start()`, then `more()` until `ended`; each returns bytes to send, perhaps none. If the client
    is gone, the connection calls `abandon()` instead. One thread makes all these calls, in one context.
    """

    request: Request
    sent: int
    """Bytes that the connection has sent or queued; the connection counts them."""
    keep_alive: bool
    """Whether the connection can take another request, once `ended`."""
    must_reset: bool
    """Whether only a reset shows the client that the body is incomplete, since its end is the connection's end."""
    ended: bool
    span: Span | None
    """A part of a file to send after the bytes. The connection must close the descriptor."""

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
