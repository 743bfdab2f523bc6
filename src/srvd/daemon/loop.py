"""The daemon's event loop for descriptors, timers and signals: epoll(7), one thread.

Used instead of asyncio, whose import would take a quarter of the daemon's start. Knows no coroutines, threads or
transports.
"""

from __future__ import annotations

import heapq
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

__all__ = ["Callback", "Loop", "Timer"]

Callback = Callable[..., object]
_Call = Callable[[], object]

_LONGEST = 86400.0
"""Longest wait in seconds: epoll_wait(2) counts milliseconds in an int."""

_FEW = 64
"""Number of timers below which cancelled ones are not removed. Some deadlines move with every event."""


class Timer(Protocol):
    """A pending call at a point in time."""

    def cancel(self) -> None:
        """Cancel the call, even if it is due in this turn of the loop. Without effect after the call or a cancel."""


class _Moment:
    """The implementation of `Timer`."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: _Call) -> None:
        self.when = when  # monotonic seconds
        self.call: _Call | None = call  # None: cancelled, or over

    def __lt__(self, other: _Moment) -> bool:
        return self.when < other.when

    def cancel(self) -> None:
        self.call = None


class _Watch:
    """The callbacks of one descriptor."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader: _Call | None = None
        self.writer: _Call | None = None

    @property
    def mask(self) -> int:
        return (select.EPOLLIN if self.reader else 0) | (select.EPOLLOUT if self.writer else 0)


class Loop:
    """The loop belongs to one thread. Callbacks may call all methods except `run` and `close`.

    bug: called with each exception of a callback; without it, `run` raises the exception.
    """

    def __init__(self, bug: Callable[[Exception], object] | None = None) -> None:
        self._bug = bug
        self._epoll = select.epoll()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[_Moment] = []  # a heap
        self._many = _FEW
        self._soon: deque[_Call] = deque()
        self._stopping = False
        self._signals: dict[int, _Call] = {}
        self._alarm: tuple[socket.socket, socket.socket] | None = None

    def time(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    # -- what is waited for ----------------------------------------------------------------------------------------

    def add_reader(self, fd: int, callback: Callback, /, *args: object) -> None:
        """Call `callback` whenever `fd` is readable, at end of file, or has an error."""
        watch = self._watches.get(fd) or _Watch()
        watch.reader = partial(callback, *args)
        self._tell(fd, watch)

    def add_writer(self, fd: int, callback: Callback, /, *args: object) -> None:
        """Call `callback` whenever `fd` is writable or has an error."""
        watch = self._watches.get(fd) or _Watch()
        watch.writer = partial(callback, *args)
        self._tell(fd, watch)

    def remove_reader(self, fd: int, /) -> None:
        """Remove the callback, even if `fd` is ready in this turn. Call it before the descriptor is closed."""
        if watch := self._watches.get(fd):
            watch.reader = None
            self._tell(fd, watch)

    def remove_writer(self, fd: int, /) -> None:
        if watch := self._watches.get(fd):
            watch.writer = None
            self._tell(fd, watch)

    def _tell(self, fd: int, watch: _Watch) -> None:
        if fd not in self._watches:
            self._epoll.register(fd, watch.mask)
            self._watches[fd] = watch
        elif watch.mask:
            self._epoll.modify(fd, watch.mask)
        else:
            del self._watches[fd]
            with suppress(OSError):  # closed already: the kernel has removed it
                self._epoll.unregister(fd)

    def call_soon(self, callback: Callback, /, *args: object) -> None:
        """Call `callback` in the next turn."""
        self._soon.append(partial(callback, *args))

    def call_later(self, delay: float, callback: Callback, /, *args: object) -> Timer:
        """Call `callback` in `delay` seconds; not in this turn, even with 0."""
        return self.call_at(time.monotonic() + delay, callback, *args)

    def call_at(self, when: float, callback: Callback, /, *args: object) -> Timer:
        """Call `callback` at `when`, in monotonic seconds."""
        if len(self._timers) >= self._many:
            self._timers = [timer for timer in self._timers if timer.call is not None]
            heapq.heapify(self._timers)
            self._many = max(_FEW, 2 * len(self._timers))
        timer = _Moment(when, partial(callback, *args))
        heapq.heappush(self._timers, timer)
        return timer

    def on_signal(self, number: signal.Signals, callback: Callback, /, *args: object) -> None:
        """Call `callback` in a turn of the loop after this signal. Several signals may be one call."""
        if self._alarm is None:
            self._alarm = ours, theirs = socket.socketpair()
            ours.setblocking(False)
            theirs.setblocking(False)
            self.add_reader(ours.fileno(), self._signalled, ours)
            signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._signals[number] = partial(callback, *args)
        signal.signal(number, _let_it_come)
        signal.siginterrupt(number, False)

    def _signalled(self, alarm: socket.socket) -> None:
        for number in dict.fromkeys(alarm.recv(4096)):
            if call := self._signals.get(number):
                self._do(call)

    # -- turning ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop`. Returns at once if `stop` was called before."""
        while not self._stopping:
            self._turn()
        self._stopping = False

    def stop(self) -> None:
        """End `run` after this turn."""
        self._stopping = True

    def close(self) -> None:
        """Close the loop: no callback is called any more, and signals have no effect."""
        if self._alarm is not None:
            signal.set_wakeup_fd(-1)
            for end in self._alarm:
                end.close()
            self._alarm = None
        self._watches.clear()
        self._epoll.close()

    def _turn(self) -> None:
        ready = [(self._watches[fd], mask) for fd, mask in self._epoll.poll(self._patience()) if fd in self._watches]
        due, soon = self._take_due(), len(self._soon)
        for watch, mask in ready:  # an error or end (EPOLLERR, EPOLLHUP) calls both callbacks
            if mask & ~select.EPOLLOUT and watch.reader:
                self._do(watch.reader)
            if mask & ~select.EPOLLIN and watch.writer:
                self._do(watch.writer)
        for timer in due:
            if call := timer.call:
                timer.call = None
                self._do(call)
        for _ in range(soon):
            self._do(self._soon.popleft())

    def _patience(self) -> float:
        if self._soon:
            return 0.0
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1.0
        return min(max(self._timers[0].when - time.monotonic(), 0.0), _LONGEST)

    def _take_due(self) -> list[_Moment]:
        due: list[_Moment] = []
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            due.append(heapq.heappop(self._timers))
        return due

    def _do(self, call: _Call) -> None:
        try:
            call()
        except Exception as exc:  # one callback ends here, not the daemon
            if self._bug is None:
                raise
            self._bug(exc)


def _let_it_come(number: int, frame: object) -> None:
    """Do nothing: the wakeup descriptor has received the signal's number (signal.set_wakeup_fd)."""
