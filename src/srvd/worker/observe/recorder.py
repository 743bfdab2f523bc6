"""Tells the scoreboard what the application is doing, and rings the daemon's bell if nobody looks at it.

Decides nothing: what is too slow is the daemon's question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from srvd.linux.scoreboard import Lane

if TYPE_CHECKING:
    from srvd.http.h1.sink import Scope
    from srvd.worker.observe.completion import Completion, Response

__all__ = ["Recorder"]


class Recorder:
    """One thread's. `begin` and `end` are on the path of every request."""

    __slots__ = ("_bell", "_lane", "_witness")

    def __init__(self, lane: Lane, bell: Callable[[], bool], witness: Completion | None = None) -> None:
        self._lane = lane
        self._bell = bell
        self._witness = witness

    def begin(self, now: float, label: bytes) -> None:
        """The application is called for the request `label`."""
        if not self._lane.begin(now, label):
            # Also if it has rung before: the daemon may have looked, found that request over, and gone to sleep.
            self._bell()

    @property
    def began(self) -> float:
        """When the application was called; 0.0: it is not in a call."""
        return self._lane.began

    @property
    def last_gave(self) -> float:
        """When the application, which is in a call, gave something last, or was called."""
        return self._lane.last_gave

    def gave(self, now: float) -> None:
        """The application has given a part of its response, or its reader has taken one that it waited for."""
        self._lane.gave(now)

    def end(self, now: float, response: Response, began: float) -> None:
        """The response that began at `began` has ended."""
        self._lane.end(now, response.code, response.sent, began)
        if self._witness is not None:
            self._witness.ended(response, began, now)

    def refused(self, now: float, status: int, sent: int, scope: Scope) -> None:
        """A request was answered without the application; `scope` is what is known of it."""
        self._lane.end(now, status, sent, now)
        if self._witness is not None:
            self._witness.refused(scope, status)

    def connections(self, count: int) -> None:
        self._lane.connections(count)
