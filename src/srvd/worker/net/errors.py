"""What is raised into an application whose client, or whose body, is not there any more.

Raised by the connection and the body's stream; none of them is the application's error.
"""

from __future__ import annotations

from srvd.http.h1.refusal import Refusal

__all__ = ["BodyBroken", "ReaderGone"]


class ReaderGone(ConnectionError):
    """Raised into an application that calls write() for a client that is not there any more, or does not read."""


class BodyBroken(ConnectionError):
    """Raised into an application that reads a body which will never be whole. `status` is what the client is told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.status = refusal.status
