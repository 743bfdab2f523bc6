"""Records on the scoreboard what the application is doing, and wakes the daemon if it does not read the scoreboard.

Decides nothing: the daemon decides which request is too slow.
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
    """The recorder of one thread. `begin` and `end` are called for every request."""

    __slots__ = ("_bell", "_completion", "_lane")

    def __init__(self, lane: Lane, bell: Callable[[], bool], completion: Completion | None = None) -> None:
        self._lane = lane
        self._bell = bell
        self._completion = completion

    def begin(self, now: float, label: bytes) -> None:
        """Records that the application is called for the request `label`."""
        if not self._lane.begin(now, label):
            # Even if the worker has woken the daemon before: the daemon may have found that request ended, and stopped
            # reading again.
            self._bell()

    def show(self, began: float, label: bytes, gave: float) -> None:
        """Records, of several requests under way, the one that the scoreboard shows."""
        if not self._lane.show(began, label, gave):
            self._bell()

    def show_again(self, began: float) -> None:
        """Records that the request that was shown last goes on, after the end of another one."""
        if not self._lane.show_again(began):
            self._bell()

    @property
    def began(self) -> float:
        """When the application was called; 0.0 if no call is under way."""
        return self._lane.began

    @property
    def last_gave(self) -> float:
        """When the application last gave a part of the response in the call under way, or was called."""
        return self._lane.last_gave

    def gave(self, now: float) -> None:
        """Records that the application has given a part of its response, or that its client has taken one for which the
        thread waited.
        """
        self._lane.gave(now)

    def rest(self) -> None:
        """Records that no request is under way, although none has ended: it has become a WebSocket."""
        self._lane.rest()

    def end(self, now: float, response: Response, sent: int, began: float) -> None:
        """Records the end of the response that began at `began`; `sent` are its bytes, with the head."""
        self._lane.end(now, response.code, sent, began)
        if self._completion is not None:
            self._completion.ended(response, sent, began, now)

    def refused(self, now: float, status: int, sent: int, scope: Scope) -> None:
        """Records a request answered without the application; `scope` has what is known of the request."""
        self._lane.end(now, status, sent, now)
        if self._completion is not None:
            self._completion.refused(scope, status)

    def event_loop(self, in_flight: int, websockets: int, lag: float) -> None:
        """Records what is under way in an event loop, and its lag: for how many seconds it looked after nobody."""
        self._lane.event_loop(in_flight, websockets, lag)

    def connections(self, count: int) -> None:
        self._lane.connections(count)
