"""What a connection needs of the application's side: one object for each request, whatever the calling convention.

Only the face: WSGI's is `worker/wsgi/exchange.py`.
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
"""A body that is kept here, or one that is read from the connection; None: the body, if there is one, is
`Request.whole`.
"""


class Responder(Response, Protocol):
    """From the application's call to the end of its response.

    `start()`, then `more()` until `ended`; each returns bytes to send, maybe none. `abandon()` instead if the client is
    gone. All of them are called by one thread, in one context.
    """

    request: Request
    sent: int
    """Bytes that the connection has sent, or kept for the client; counted by the connection."""
    keep_alive: bool
    """Whether the connection can be used again, once `ended`."""
    must_reset: bool
    """Only a reset shows the client that the body is not whole: its end would be the connection's end."""
    ended: bool
    span: Span | None
    """A part of a file that comes after the bytes. The descriptor is for the connection to close."""

    @property
    def endless(self) -> bool:
        """The end of the response is the end of the connection, which is to be a reset if the worker is killed."""

    def start(self) -> bytes:
        """Calls the application; the first bytes of its response. Does not raise."""

    def more(self) -> bytes:
        """The next bytes of the response; b"" if there are none now. Does not raise."""

    def abandon(self) -> None:
        """Ends the response: the client is gone."""


Push = Callable[[Responder, bytes], None]
"""Sends what an application gives beside `start` and `more`. Raises `ReaderGone`."""
