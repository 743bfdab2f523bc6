"""What the daemon's parts need of an event loop, and a stand-in for the time before there is one.

Not an event loop: asyncio's fits `Loop`, but takes 40 ms to import, and the first zygote need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["LateLoop", "Loop", "Timer"]


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """The part of `asyncio.AbstractEventLoop` that is used."""

    def add_reader(self, fd: int, callback: Callable[..., Any], /, *args: Any) -> Any: ...

    def remove_reader(self, fd: int, /) -> Any: ...

    def call_later(self, delay: float, callback: Callable[..., Any], /, *args: Any) -> Timer: ...


class LateLoop:
    """Remembers readers and timers until `attach` gives the loop that serves them; a `Loop` itself."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._readers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._timers: list[LateTimer] = []

    def attach(self, loop: Loop) -> None:
        """Hand over what was remembered, and everything from now on. Delays count from here."""
        self._loop = loop
        for fd, (callback, args) in self._readers.items():
            loop.add_reader(fd, callback, *args)
        for timer in self._timers:
            timer.start(loop)
        self._readers.clear()
        self._timers.clear()

    def add_reader(self, fd: int, callback: Callable[..., Any], /, *args: Any) -> None:
        if self._loop is None:
            self._readers[fd] = (callback, args)
        else:
            self._loop.add_reader(fd, callback, *args)

    def remove_reader(self, fd: int, /) -> None:
        if self._loop is None:
            self._readers.pop(fd, None)
        else:
            self._loop.remove_reader(fd)

    def call_later(self, delay: float, callback: Callable[..., Any], /, *args: Any) -> Timer:
        if self._loop is not None:
            return self._loop.call_later(delay, callback, *args)
        timer = LateTimer(delay, callback, args)
        self._timers.append(timer)
        return timer


class LateTimer:
    """A timer asked for before there was a loop."""

    __slots__ = ("_args", "_callback", "_delay", "_real", "_void")

    def __init__(self, delay: float, callback: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._delay = delay
        self._callback = callback
        self._args = args
        self._real: Timer | None = None
        self._void = False

    def start(self, loop: Loop) -> None:
        if not self._void:
            self._real = loop.call_later(self._delay, self._callback, *self._args)

    def cancel(self) -> None:
        self._void = True
        if self._real is not None:
            self._real.cancel()
