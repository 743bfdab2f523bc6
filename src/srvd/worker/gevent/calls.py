"""The calls of one worker, each in a greenlet of a pool: which ones run, and which are late.

A greenlet has one call at a time, and no connection has one of its own: idle and slow clients cost none. A call that
does not wait has ended when the switch to its greenlet returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from greenlet import greenlet

from srvd.worker.loop import NEVER
from srvd.worker.net.errors import RequestTimeout

if TYPE_CHECKING:
    from srvd.worker.gevent.loop import HubLoop
    from srvd.worker.observe.completion import Response
    from srvd.worker.observe.recorder import Recorder

__all__ = ["Calls", "Seat"]

_GRACE = 2.0  # as in asgi/cycles.py
"""Seconds by which the daemon sees a call later than it is: the worker ends it by itself, unless the hub hangs."""
_TURN = 0.01
"""The longest time in seconds of calls between two turns of the loop, which may have commands waiting."""

Work = Callable[["Seat", float], Callable[[float], None]]
"""Makes a call, with the time; returns what is to be done with its end in the hub."""


class Seat:
    """A greenlet of the pool, and the recorder of its call: has the methods of a `Recorder` that a call uses."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.greenlet = greenlet(self._live, parent=calls.loop.hub)
        self.work: Work | None = None
        self.settle: Callable[[float], None] | None = None
        self.waits = False
        """Whether the call has let the hub go on."""
        self.thrown = False
        self.began = 0.0
        self.last_gave = 0.0
        self.line = b""

    def begin(self, now: float, label: bytes) -> None:
        self.began = self.last_gave = now
        self.line = label
        self.thrown = False
        self._calls.begin(self)

    def gave(self, now: float) -> None:
        self.last_gave = now
        self._calls.gave(self)

    def end(self, now: float, response: Response, sent: int, began: float) -> None:
        self._calls.end(self, now, response, sent, began)
        self.began = 0.0

    def _live(self) -> None:
        calls = self._calls
        switch = calls.loop.hub.switch
        while True:
            work = self.work
            assert work is not None
            try:
                self.settle = work(self, monotonic())
            except RequestTimeout:  # thrown when the call had ended nearly
                self.settle = _nothing
            self.work = None
            if self.waits:
                self.waits = False
                calls.over(self)
            switch()


class Calls:
    """`most`: the number of greenlets; `timeout`: seconds, or NEVER."""

    def __init__(self, loop: HubLoop, recorder: Recorder, most: int, timeout: float) -> None:
        self.loop = loop
        self.waiting: deque[Work] = deque()
        self.running: dict[Seat, None] = {}
        """The seats whose applications were called, the oldest call first. The scoreboard shows the oldest."""
        self.deadline = NEVER
        self.made = 0
        self.on_free: Callable[[float], None] | None = None
        """Called when a greenlet is free again after all were taken, once."""
        self._recorder = recorder
        self._most = most
        self._timeout = timeout
        self._free: list[Seat] = []
        self._shown: Seat | None = None
        loop.after_turn = self.start
        loop.watch(self)

    @property
    def full(self) -> bool:
        return not self._free and self.made >= self._most

    def start(self) -> None:
        """Makes calls that wait. In the hub's greenlet, outside of all handlers."""
        waiting, free = self.waiting, self._free
        until = 0.0
        while waiting:
            if free:
                seat = free.pop()
            elif self.made < self._most:
                self.made += 1
                seat = Seat(self)
            else:
                return
            seat.work = waiting.popleft()
            seat.greenlet.switch()
            settle, seat.settle = seat.settle, None
            if settle is None:
                seat.waits = True
                continue
            free.append(seat)
            now = monotonic()
            settle(now)
            if not until:
                until = now + _TURN
            elif now > until:
                self.loop.later(_nothing)
                return

    def over(self, seat: Seat) -> None:
        """Takes a seat back after a call that waited. In the seat's greenlet, which switches to the hub next."""
        settle, seat.settle = seat.settle, None
        assert settle is not None
        self._free.append(seat)
        self.loop.post(settle)
        on_free, self.on_free = self.on_free, None
        if on_free is not None:
            self.loop.post(on_free)

    def begin(self, seat: Seat) -> None:
        if not self.running:
            self._show(seat)
            self.deadline = seat.last_gave + self._timeout
            self.loop.due_at(self.deadline)
        self.running[seat] = None

    def gave(self, seat: Seat) -> None:
        if seat is self._shown:
            self._recorder.gave(seat.last_gave + _GRACE)

    def end(self, seat: Seat, now: float, response: Response, sent: int, began: float) -> None:
        self.running.pop(seat, None)
        self._recorder.end(now, response, sent, began)
        if not self.running:
            self._shown = None
        elif self._shown is seat or self._shown is None:
            self._show(next(iter(self.running)))
        else:
            self._recorder.show_again(self._shown.began)

    def late(self, since: float) -> int:
        """Returns the number of calls that have had no part of a response since then."""
        return sum(seat.last_gave <= since for seat in self.running)

    def expire(self, now: float) -> None:
        """Ends the calls that are over the time. In the hub's greenlet."""
        timeout = self._timeout
        for seat in [seat for seat in self.running if seat.last_gave + timeout <= now and not seat.thrown]:
            seat.thrown = True
            seat.greenlet.throw(RequestTimeout)
        left = [seat.last_gave for seat in self.running if not seat.thrown]
        self.deadline = min(left) + timeout if left else NEVER

    def _show(self, seat: Seat) -> None:
        self._shown = seat
        self._recorder.show(seat.began, seat.line, seat.last_gave + _GRACE)


def _nothing(now: float) -> None:
    """Does nothing: the call has settled itself, or a turn is to come soon."""
