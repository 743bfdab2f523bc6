"""The phases of a connection's life.

Not how it gets from one to another: that is the connection's.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Phase"]


class Phase(Enum):
    IDLE = "idle"  # between requests
    HEAD = "head"  # a part of a request's head has come
    BODY = "body"  # the head has come, a part of the body is missing
    QUEUED = "queued"  # requests that came together wait for their turn
    CALLING = "calling"  # the application has it, in some thread (only with several)
    ANSWERING = "answering"  # the response waits for its reader
    LINGERING = "lingering"  # all is said; what still comes is thrown away, so that no reset overtakes the answer
    CLOSED = "closed"
