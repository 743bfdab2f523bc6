"""Exceptions for an application whose client is gone, or whose request body is broken.

The connection and the body's stream raise them; none is an error of the application.
"""

from __future__ import annotations

from srvd.http.h1.refusal import Refusal

__all__ = ["BodyBroken", "ReaderGone", "RequestTimeout", "comes_of_the_end"]


_LONGEST_CHAIN = 32
"""Causes of an exception that are looked at."""


class ReaderGone(ConnectionError):
    """Raised into an application that calls write() for a client that is gone, or does not read."""


class RequestTimeout(BaseException):
    """Raised into an application whose request is over `request_timeout`, where the one call can be ended: in a
    greenlet. Not an Exception, which applications catch.
    """

    status = 504


class BodyBroken(ConnectionError):
    """Raised into an application that reads a body which can never be complete. The client is sent `status`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.status = refusal.status


def comes_of_the_end(exc: BaseException | None) -> bool:
    """Whether an exception is, or came of, the one that tells the application that its client is gone."""
    seen = 0
    while exc is not None and seen < _LONGEST_CHAIN:
        if isinstance(exc, ReaderGone):
            return True
        if isinstance(exc, BaseExceptionGroup):
            return all(map(comes_of_the_end, exc.exceptions))
        exc = exc.__cause__ or exc.__context__
        seen += 1
    return False
