"""Exceptions for an application whose client is gone, or whose request body is broken.

The connection and the body's stream raise them; none is an error of the application.
"""

from __future__ import annotations

from srvd.http.h1.refusal import Refusal

__all__ = ["BodyBroken", "ReaderGone"]


class ReaderGone(ConnectionError):
    """Raised into an application that calls write() for a client that is gone, or does not read."""


class BodyBroken(ConnectionError):
    """Raised into an application that reads a body which can never be complete. The client is sent `status`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.status = refusal.status
