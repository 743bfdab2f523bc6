"""The requests under way in one worker, by what they are, and which of them the scoreboard shows.

Ends no request: its connection does, and at the end of a worker `leaving.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from srvd.worker.asgi.leaving import Leaving

if TYPE_CHECKING:
    from srvd.worker.asgi.http import HttpCycle
    from srvd.worker.asgi.ws.cycle import WebSocketCycle
    from srvd.worker.loop import Loop
    from srvd.worker.observe.recorder import Recorder

__all__ = ["Cycles"]

_GRACE = 2.0  # not more than `scoreboard.AHEAD`
"""Seconds by which the daemon sees a request later than it is: the worker ends it by itself, unless the loop hangs."""


class Cycles:
    """The requests of one worker whose responses or tasks have not ended."""

    def __init__(self, loop: Loop, recorder: Recorder) -> None:
        self._recorder = recorder
        self._shown: HttpCycle | None = None
        self.running: OrderedDict[HttpCycle, None] = OrderedDict()
        """The requests without a complete response, the oldest first. The scoreboard shows the oldest."""
        self.tasks: set[HttpCycle] = set()
        """The requests whose tasks have not ended."""
        self.websockets: dict[WebSocketCycle, None] = {}
        """Those whose handshake was accepted; they are not among `running`."""
        self.event_streams: dict[HttpCycle, None] = {}
        """Event streams, which are not among `running`, either."""
        self.leaving = Leaving(loop, self)

    def begin(self, cycle: HttpCycle) -> None:
        self.tasks.add(cycle)
        if not self.running:
            self._show(cycle)
        self.running[cycle] = None

    def gave(self, cycle: HttpCycle) -> None:
        """The application has given a part of its response, or the client has taken one."""
        if cycle is self._shown:
            self._recorder.gave(cycle.gave + _GRACE)

    def switch(self, cycle: WebSocketCycle) -> None:
        """A request has become a WebSocket, which may be silent for as long as it likes."""
        self.websockets[cycle] = None
        self._hide(cycle)
        if self.leaving.begun:
            self.leaving.opened(cycle)

    def stream(self, cycle: HttpCycle) -> None:
        """The response to a request is an event stream, which may be silent, too."""
        self.event_streams[cycle] = None
        self._hide(cycle)
        if self.leaving.begun:
            self.leaving.started(cycle)

    def end(self, cycle: HttpCycle, now: float) -> None:
        """The response is complete, or will never be; or a WebSocket has ended, which the caller takes out."""
        if self.running.pop(cycle, cycle) is cycle:
            self.event_streams.pop(cycle, None)
        self._recorder.end(now, cycle, cycle.sent, cycle.began)
        if not self.running:
            self._shown = None
        elif self._shown is cycle or self._shown is None:
            self._show(next(iter(self.running)))
        else:
            self._recorder.show_again(self._shown.began)

    @property
    def in_flight(self) -> int:
        """The number of requests whose responses have not ended."""
        return len(self.running) + len(self.event_streams) + len(self.websockets)

    def late(self, since: float) -> int:
        """Returns the number of requests that have had no part of a response since then."""
        return sum(cycle.gave <= since for cycle in self.running)

    def _hide(self, cycle: HttpCycle) -> None:
        """Takes a request off the scoreboard that the daemon must not take for late."""
        self.running.pop(cycle, None)
        if self.running:
            self._show(next(iter(self.running)))
        else:
            self._shown = None
            self._recorder.rest()

    def _show(self, cycle: HttpCycle) -> None:
        self._shown = cycle
        self._recorder.show(cycle.began, cycle.request.line, cycle.gave + _GRACE)
