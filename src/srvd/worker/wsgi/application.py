"""The application by the convention of PEP 3333, with what all its responses in one worker share.

Calls nothing by itself: an `Exchange` does, for one request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from time import sleep
from typing import TYPE_CHECKING, Any

from srvd.worker.app.dropped_fields import DroppedFields
from srvd.worker.app.hooks import PROBE, Hook, call
from srvd.worker.app.loader import Application

if TYPE_CHECKING:
    from srvd.http.h1.sink import Scope
    from srvd.log import Log

__all__ = ["WsgiApplication", "with_before_request"]


class WsgiApplication:
    """`call` is the application itself, `stamp` returns the Server and Date lines of a response that is made now."""

    def __init__(self, call: Application, log: Log, stamp: Callable[[], bytes]) -> None:
        self.call = call
        self.log = log
        self.stamp = stamp
        self.writers = Writers()
        self.dropped_fields = DroppedFields(log)


class Writers:
    """Counts the threads that give bytes of a response besides its iterable: by write(), early hints, 100 Continue.

    A thread that the application has left behind may do so at any time, and must not send between the end of the
    response and the beginning of the next one. So it enters before it looks whether the response has ended, and the
    response ends before it waits (`wait`).
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.counts: dict[object, int] = {}
        """How many threads give bytes of a response; without responses of which none does."""

    def enter(self, response: object) -> None:
        with self._lock:
            self.counts[response] = self.counts.get(response, 0) + 1

    def leave(self, response: object) -> None:
        with self._lock:
            count = self.counts.pop(response) - 1
            if count:
                self.counts[response] = count

    def wait(self, response: object) -> None:
        """Waits until no thread gives bytes of the response; `send_timeout` limits the time of each."""
        while response in self.counts:
            sleep(0.001)


def with_before_request(app: Application, hook: Hook | None, log: Log) -> Application:
    """Returns an application that calls the hook first; the application itself without a hook."""
    if hook is None:
        return app

    def application(environ: Scope, start_response: Any) -> Iterable[bytes]:
        if PROBE not in environ:
            call(hook, "before_request", log, environ)
        return app(environ, start_response)

    return application
