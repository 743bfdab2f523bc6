"""The event loop of one worker: ready descriptors, passed deadlines, postponed calls. epoll(7), one thread.

Knows nothing about HTTP, listeners or commands, which are handlers of descriptors.
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

_LONGEST = 1_000_000.0
"""Seconds of one wait: epoll takes no infinity, and at most 24 days."""

# Deadlines may be noticed so many seconds late, so that a thousand different ones do not cause a thousand sweeps.
_SWEEP_GAP = 0.05
# Seconds between two looks for commands while handlers take long (those that call the application).
_URGENT_GAP = 0.01


class Timed(Protocol):
    """Something with a deadline. Code that sets an earlier deadline must call `Loop.due_at`; later ones are found."""

    deadline: float

    def expire(self, now: float) -> None:
        """Handles the passed deadline. Must set another deadline, or call `Loop.forget`."""


class Loop:
    """Calls `turn` until stopped. All methods must be called from the thread that turns the loop."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._handlers: dict[int, Handler] = {}
        self._timed: set[Timed] = set()
        self.due = NEVER
        """No deadline is earlier."""
        self._later: deque[Callable[[float], None]] = deque()
        self._running = True
        self.muted: set[int] = set()
        """Descriptors that are not in epoll until `want` is called for them. Other threads may read this set."""
        self.ready = 0
        """The number of ready descriptors in this turn."""
        self.read_at = NEVER
        """When the last wait ended."""
        self.urgent: Callable[[float], None] | None = None

    def add(self, fd: int, mask: int, handler: Handler) -> None:
        self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def add_muted(self, fd: int, handler: Handler) -> None:
        """Adds a descriptor without any event, until `want`."""
        self._handlers[fd] = handler
        self.muted.add(fd)

    def want(self, fd: int, mask: int) -> None:
        """Waits for these events from now on."""
        if fd in self.muted:
            self._epoll.register(fd, mask)
            self.muted.discard(fd)
        else:
            self._epoll.modify(fd, mask)

    def remove(self, fd: int) -> None:
        # close(2) is not enough: a copy in a child process of the application keeps the descriptor in the epoll set.
        del self._handlers[fd]
        if fd in self.muted:
            self.muted.discard(fd)
        else:
            self._epoll.unregister(fd)

    def descriptors(self) -> list[int]:
        """Returns the loop's own descriptor, and all that have a handler."""
        return [self._epoll.fileno(), *self._handlers]

    def watch(self, timed: Timed) -> None:
        """Watches the deadline of `timed` from now on."""
        self._timed.add(timed)
        self.due_at(timed.deadline)

    def forget(self, timed: Timed) -> None:
        self._timed.discard(timed)

    def due_at(self, deadline: float) -> None:
        """Tells the loop that some deadline is now `deadline`."""
        if deadline < self.due:
            self.due = deadline

    def later(self, call: Callable[[float], None]) -> None:
        """Calls `call` after the handlers of all descriptors that were ready in this turn."""
        self._later.append(call)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            self.turn()

    def close(self) -> None:
        self._epoll.close()

    def turn(self, longest: float = _LONGEST) -> None:
        """Waits for events, for at most `longest` seconds, then runs their handlers, the postponed calls and the passed
        deadlines.

        A deadline counts as passed if it was when the events were read. Handlers may take longer than a client has for
        its request: one that came meanwhile is found in the next turn, and must not be taken for late.
        """
        clock = time.monotonic
        if self._later or (timeout := self.due - clock()) < 0.0:
            timeout = 0.0
        elif timeout > longest:
            timeout = longest
        handlers = self._handlers
        events = self._epoll.poll(timeout)
        self.ready = len(events)
        self.read_at = read = now = looked = clock()
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is None:  # removed by an earlier handler in this turn
                continue
            handler(mask, now)
            now = clock()
            if now - looked > _URGENT_GAP and self.urgent is not None:
                self.urgent(now)
                looked = now
        if self._later:
            for _ in range(len(self._later)):
                self._later.popleft()(now)
                now = clock()
        if read >= self.due:
            self._sweep(read, now)

    def _sweep(self, read: float, now: float) -> None:
        self.due = NEVER
        for timed in tuple(self._timed):
            if timed.deadline <= read:
                timed.expire(now)
            if timed in self._timed:
                self.due_at(timed.deadline)
        self.due = max(self.due, now + _SWEEP_GAP)
