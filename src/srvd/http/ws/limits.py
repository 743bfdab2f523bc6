"""The sizes and counts that bound what one WebSocket makes the server keep.

Not times: those belong to the process that owns the connection.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Limits"]


class Limits(NamedTuple):
    """All in bytes, but for `fragments` and `pongs`. The close code for what is over them is named beside them."""

    message: int = 16 << 20  # a message, after it was inflated: 1009
    fragments: int = 1_024  # frames of one message, beyond one for each 32 bytes of it: 1008
    pongs: int = 16
    """Answers to pings that wait to be sent. The oldest are dropped: the newest answers all (RFC 6455, 5.5.3)."""
    inflated: int = 262_144
    """What one call of `receive` inflates, and the message with which it gets there. The rest is for the next call."""
