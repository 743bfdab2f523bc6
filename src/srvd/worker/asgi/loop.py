"""The worker's loop inside asyncio: a selector whose `select` is a turn of the worker's loop.

Descriptors of the worker (connections, listeners, link) are handled within `select`, without a transport or a handle
of asyncio; those that asyncio registers are returned to it. Knows nothing of HTTP, and starts no task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from select import EPOLLIN, EPOLLOUT
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import Any

from srvd.worker.loop import Handler, Loop

__all__ = ["AsyncLoop"]

_Ready = list[tuple[SelectorKey, int]]


class AsyncLoop(Loop):
    """A loop that asyncio turns. `stop` ends `asyncio.run_forever`, once."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector(self)
        self.asyncio = asyncio.SelectorEventLoop(self._selector)
        self.before_wait: Callable[[], None] = _nothing
        """Called before each turn, after the tasks that were ready have run."""

    @property
    def running(self) -> bool:
        return self._running

    def stop(self) -> None:
        if self._running:
            self._running = False
            self.asyncio.stop()

    def run(self) -> None:
        """Serves until `stop`. Raises the exception of a handler, which is a bug; SystemExit in a task of the
        application ends that task alone.
        """
        asyncio.set_event_loop(self.asyncio)
        while self._running:
            with suppress(SystemExit, KeyboardInterrupt):
                self.asyncio.run_forever()

    def close(self) -> None:
        self.asyncio.close()
        super().close()

    def handles(self, fd: int, handler: Handler) -> bool:
        """Whether this is the handler of the descriptor."""
        return self._handlers.get(fd) is handler

    def descriptors(self) -> list[int]:
        """Returns the descriptors of the worker; those of the application stay open in its child processes."""
        theirs = self._selector.get_map()
        return [fd for fd in super().descriptors() if fd not in theirs]


class _Keys(Mapping[Any, SelectorKey]):
    """The registered descriptors, found by their number or by their object."""

    def __init__(self) -> None:
        self.by_fd: dict[int, SelectorKey] = {}
        self.handlers: dict[int, Handler] = {}

    def __len__(self) -> int:
        return len(self.by_fd)

    def __iter__(self) -> Iterator[int]:
        return iter(self.by_fd)

    def __getitem__(self, file: Any) -> SelectorKey:
        return self.by_fd[self.number(file)]

    def number(self, file: Any) -> int:
        """Raises `KeyError`, as `selectors` does, for a closed file that is not registered."""
        if type(file) is int:
            return file
        number: int = file.fileno()
        if number >= 0:
            return number
        for key in self.by_fd.values():
            if key.fileobj is file:
                return key.fd
        raise KeyError(f"{file!r} is not registered")


class _Selector(BaseSelector):
    """What asyncio waits with. All methods are those of `selectors`."""

    def __init__(self, loop: AsyncLoop) -> None:
        self._loop = loop
        self._keys = _Keys()
        self._ready: _Ready = []

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        fd = self._keys.number(fileobj)
        if fd in self._keys.by_fd:
            raise KeyError(f"{fileobj!r} is already registered")
        key = SelectorKey(fileobj, fd, events, data)
        handler = self._keys.handlers[fd] = lambda mask, now: self._note(fd, mask)
        self._loop.add(fd, _mask(events), handler)
        self._keys.by_fd[fd] = key
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        key = self._keys.by_fd.pop(self._keys.number(fileobj))
        handler = self._keys.handlers.pop(key.fd)
        if self._loop.handles(key.fd, handler):  # else the application has closed it, and its number is a connection's
            with suppress(OSError):  # the same, and nothing has its number
                self._loop.remove(key.fd)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        before = self._keys[fileobj]
        key = before._replace(events=events, data=data)
        if events != before.events:
            self._loop.want(key.fd, _mask(events))
        self._keys.by_fd[key.fd] = key
        return key

    def select(self, timeout: float | None = None) -> _Ready:
        loop = self._loop
        loop.before_wait()
        if timeout is None:
            loop.turn()
        else:
            loop.turn(max(timeout, 0.0))
        ready = self._ready
        if ready:
            self._ready = []
        return ready

    def get_map(self) -> _Keys:
        return self._keys

    def close(self) -> None:
        """Does nothing: the loop closes its own epoll."""

    def _note(self, fd: int, mask: int) -> None:
        key = self._keys.by_fd[fd]
        events = (EVENT_WRITE if mask & ~EPOLLIN else 0) | (EVENT_READ if mask & ~EPOLLOUT else 0)
        if events & key.events:
            self._ready.append((key, events & key.events))


def _mask(events: int) -> int:
    return (EPOLLIN if events & EVENT_READ else 0) | (EPOLLOUT if events & EVENT_WRITE else 0)


def _nothing() -> None:
    """Does nothing, until something is to be done before each turn."""
