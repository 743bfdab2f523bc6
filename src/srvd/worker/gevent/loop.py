"""The worker's loop under gevent's hub: srvd's epoll is one watcher of the hub, whose callback is a turn of the loop.

Handlers run in the hub's greenlet, and so must not wait. Knows nothing of HTTP, and calls no application.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event

from srvd.worker.loop import Loop

__all__ = ["HubLoop"]

_READ = 1
_LONGEST = 86_400.0
"""Seconds of the timer, when no deadline is near."""


class HubLoop(Loop):
    """A loop that gevent's hub turns. Methods may be called from every greenlet of the worker."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Any = gevent.get_hub()
        self.after_turn: Callable[[], None] = _nothing
        """Called after each turn, still in the hub's greenlet."""
        self._over = Event()
        self._failure: BaseException | None = None
        self._turning = False
        self._asked = False  # a turn follows without an event
        self._armed = 0.0  # when the timer fires
        self._watcher: Any = self.hub.loop.io(self._epoll.fileno(), _READ)
        self._timer: Any = self.hub.loop.timer(_LONGEST)

    def run(self) -> None:
        """Serves until `stop`, while this greenlet waits. Raises the exception of a handler, which is a bug."""
        self._watcher.start(self._turn)
        self._ask()
        try:
            if self._running:
                self._over.wait()
        finally:
            self._watcher.stop()
            self._timer.stop()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        super().stop()
        self._over.set()

    def later(self, call: Callable[[float], None]) -> None:
        super().later(call)
        self._ask()

    post = later

    def due_at(self, deadline: float) -> None:
        if deadline < self.due:
            self.due = deadline
            if not self._turning:
                self._arm()

    def mute(self, fd: int) -> None:
        """Stops all events of a descriptor, until `want`. Takes it out of epoll, which always reports a hang-up."""
        if fd not in self.muted:
            self._epoll.unregister(fd)
            self.muted.add(fd)

    def close(self) -> None:
        self._watcher.close()
        self._timer.close()
        super().close()

    def _ask(self) -> None:
        if not self._turning and not self._asked:
            self._asked = True
            self.hub.loop.run_callback(self._turn)

    def _turn(self) -> None:
        self._asked = False
        if not self._running:
            return
        self._turning = True
        try:
            self.turn(0.0)
            self.after_turn()
        except BaseException as exc:  # the process ends here
            self._failure = exc
            self.stop()
            return
        finally:
            self._turning = False
        if self._later:
            self._ask()
        if self.due != self._armed:
            self._arm()

    def _arm(self) -> None:
        """Sets the timer to the next deadline, unless it fires before."""
        if self._armed <= self.due and self._timer.active:
            return  # an early turn is harmless, and arms it anew
        self._armed = self.due
        self._timer.close()
        self.hub.loop.update_now()
        self._timer = self.hub.loop.timer(min(max(self.due - monotonic(), 0.0), _LONGEST))
        self._timer.start(self._fire)

    def _fire(self) -> None:
        self._timer.stop()
        self._armed = 0.0
        self._turn()


def _nothing() -> None:
    """Does nothing: without calls there is nothing to do after a turn."""
