"""The phases of a connection's life.

The connection decides how one phase follows another.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Phase"]


class Phase(Enum):
    IDLE = "idle"  # between requests
    HEAD = "head"  # a part of a request's head has arrived
    BODY = "body"  # the head has arrived, a part of the body is missing
    QUEUED = "queued"  # further requests of a pipeline wait for their turn
    CALLING = "calling"  # a thread is calling the application (only with several threads)
    ANSWERING = "answering"  # the rest of the response waits for the client
    LINGERING = "lingering"  # the last answer is sent; incoming bytes are dropped, so that no reset destroys the answer
    CLOSED = "closed"
