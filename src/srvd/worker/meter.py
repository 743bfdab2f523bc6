"""Tells the scoreboard what the application is doing, rings the daemon's bell if nobody looks, and keeps the pace.

Decides nothing: what is too slow is the daemon's question, whom to accept is the gate's.
"""

from __future__ import annotations

from collections.abc import Callable

from srvd.linux.scoreboard import Lane

__all__ = ["Meter"]

# Each call moves the average by an eighth of its distance: some twenty calls make a new habit.
_WEIGHT = 0.125


class Meter:
    """One thread's. `begin` and `end` are on the path of every request."""

    __slots__ = ("_began", "_bell", "_lane", "_rung", "pace")

    def __init__(self, lane: Lane, bell: Callable[[], bool]) -> None:
        self._lane = lane
        self._bell = bell
        self._rung = False
        self._began = 0.0
        self.pace = 0.01
        """How many seconds the application keeps the thread: a moving average, at first a guess on the slow side."""

    def begin(self, now: float, label: str) -> None:
        """The application is called, or goes on with a response, for the request `label`."""
        self._began = now
        self._lane.begin(now, label)
        if self._lane.watched():
            self._rung = False
        elif not self._rung:
            self._rung = self._bell()

    def rest(self, now: float) -> None:
        """The application waits for its reader; it is not busy meanwhile."""
        self._lane.rest()
        self.pace += (now - self._began - self.pace) * _WEIGHT

    def end(self, now: float, status: int, sent: int, began: float) -> None:
        """The response that began at `began` has ended."""
        self._lane.end(now, status, sent, began)
        self.pace += (now - self._began - self.pace) * _WEIGHT

    def refused(self, now: float, status: int, sent: int) -> None:
        """A request was answered without the application."""
        self._lane.end(now, status, sent, now)

    def connections(self, count: int) -> None:
        self._lane.connections(count)
