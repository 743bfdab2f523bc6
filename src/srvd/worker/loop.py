"""The event loop of one worker: what is ready, what is overdue, what goes on later. epoll(7), one thread.

Knows nothing of HTTP, of listeners or of orders: those are handlers of a descriptor.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from select import epoll  # before an application is loaded, which may replace it
from typing import Protocol

__all__ = ["NEVER", "Handler", "Loop", "Timed"]

NEVER = float("inf")

Handler = Callable[[int, float], None]
"""Called with the epoll mask and the time (monotonic seconds)."""

# Deadlines may be kept this much late, so that a thousand staggered ones do not make a thousand sweeps.
_SWEEP_GAP = 0.05
# While handlers take long (an application does), orders are looked for this often.
_URGENT_GAP = 0.01


class Timed(Protocol):
    """Something with a deadline. Whoever moves the deadline forward tells `Loop.due_at`; later ones are found."""

    deadline: float

    def expire(self, now: float) -> None:
        """The deadline has passed; it must be moved, or the thing forgotten."""


class Loop:
    """`turn` until stopped. All its methods are called from the thread that turns it."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._handlers: dict[int, Handler] = {}
        self._timed: set[Timed] = set()
        self._due = NEVER  # no deadline is earlier
        self._later: deque[Callable[[float], None]] = deque()
        self._running = True
        self.ready = 0
        """How many descriptors were ready in this turn."""
        self.urgent: Callable[[float], None] | None = None

    def add(self, fd: int, mask: int, handler: Handler) -> None:
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def want(self, fd: int, mask: int) -> None:
        """Wait for these events from now on."""
        self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        # close(2) would not do: a copy of the descriptor in some child of the application keeps it in the epoll set.
        del self._handlers[fd]
        self._epoll.unregister(fd)

    def descriptors(self) -> list[int]:
        """Its own, and all that have a handler."""
        return [self._epoll.fileno(), *self._handlers]

    def watch(self, timed: Timed) -> None:
        """Keep its deadline from now on."""
        self._timed.add(timed)
        self.due_at(timed.deadline)

    def forget(self, timed: Timed) -> None:
        self._timed.discard(timed)

    def due_at(self, deadline: float) -> None:
        """Some deadline is now this one."""
        if deadline < self._due:
            self._due = deadline

    def later(self, call: Callable[[float], None]) -> None:
        """Call it when all that was ready in this turn has been handled."""
        self._later.append(call)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            self.turn()

    def close(self) -> None:
        self._epoll.close()

    def turn(self) -> None:
        """Wait for something to do, and do it."""
        if self._later:
            timeout = 0.0
        elif self._due == NEVER:
            timeout = -1.0
        else:
            timeout = max(self._due - time.monotonic(), 0.0)
        clock = time.monotonic
        handlers = self._handlers
        events = self._epoll.poll(timeout)
        self.ready = len(events)
        now = looked = clock()
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is None:  # closed by a handler before it in this turn
                continue
            handler(mask, now)
            now = clock()
            if now - looked > _URGENT_GAP and self.urgent is not None:
                self.urgent(now)
                looked = now
        for _ in range(len(self._later)):
            self._later.popleft()(now)
            now = clock()
        if now >= self._due:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        self._due = NEVER
        for timed in tuple(self._timed):
            if timed.deadline <= now:
                timed.expire(now)
            if timed in self._timed:
                self.due_at(timed.deadline)
        self._due = max(self._due, now + _SWEEP_GAP)
