"""The lifespan of an application (ASGI, "Lifespan Protocol"): one task from before READY to after the last request.

Decides nothing about requests: `serving.py` awaits `start` before the first and `stop` after the last one.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from srvd.errors import LoadFailed
from srvd.quoting import quoted
from srvd.worker.asgi.messages.response import kind_of
from srvd.worker.tracebacks import format_traceback

if TYPE_CHECKING:
    from srvd.worker.asgi.application import AsgiApplication

__all__ = ["Lifespan"]


class Lifespan:
    """The lifespan of one worker. `mode`: "auto", "on" (an application without one fails) or "off"."""

    def __init__(self, application: AsgiApplication, mode: str = "auto") -> None:
        self._application = application
        self._mode = mode
        self._state: dict[str, Any] = {}
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._asked = False  # the application has called receive
        self._started = False  # it has said that its startup is complete
        self._strange = False  # it takes the lifespan for a request
        self._task: asyncio.Task[None] | None = None
        self._said: asyncio.Future[str] | None = None  # the failure, "" for none

    async def start(self) -> None:
        """Waits until the application has started. Raises `LoadFailed` if it cannot; an application that raises before
        its first `receive` has no lifespan.
        """
        if self._mode == "off":
            return
        application = self._application
        loop = application.loop
        self._said = loop.create_future()
        variables = copy_context()
        self._inbox.put_nowait({"type": "lifespan.startup"})
        self._task = asyncio.Task(self._run(), loop=loop, context=variables, name="lifespan")
        failure = await self._said
        if failure:
            raise LoadFailed(
                _sentence(failure),
                hint='lifespan = "off" serves an application that has none, and fails when it is asked',
                detail={"traceback": failure} if "\n" in failure else {},
            )
        if self._started:
            application.state = self._state
        application.variables = variables

    async def stop(self, seconds: float) -> None:
        """Tells the application that the last request is over, and waits for at most so many seconds."""
        task = self._task
        if task is None or task.done():
            return
        if not self._started:  # the worker was told to leave before
            task.cancel()
            await asyncio.wait([task], timeout=1.0)
            return
        self._said = self._application.loop.create_future()
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        await asyncio.wait([self._said], timeout=seconds)
        log = self._application.log
        if not self._said.done():
            log.warning(f"the application's shutdown (lifespan) has not ended within {seconds:g} s")
            task.cancel()
        elif self._said.result():
            log.error(f"the application's shutdown failed (lifespan)\n{self._said.result()}")
        # The rest of it, behind its last message.
        await asyncio.wait([task], timeout=1.0)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._application.call(scope, self._receive, self._send)
        except BaseException as exc:  # the application ends here
            if (self._asked and not self._strange) or self._mode == "on":
                self._say(format_traceback(exc))
        else:
            if self._mode == "on" and not self._asked:
                self._say("the application returned from its lifespan without a word")
        self._say("")

    async def _receive(self) -> dict[str, Any]:
        self._asked = True
        return await self._inbox.get()

    async def _send(self, message: dict[str, Any]) -> None:
        kind = kind_of(message)
        if kind in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            self._started = True
            self._say("")
        elif kind in ("lifespan.startup.failed", "lifespan.shutdown.failed"):
            self._say(str(message.get("message", "")) or f"the application sent {kind}")
        else:
            self._strange = self._said is not None and not self._said.done()
            raise RuntimeError(f"{kind} is no message of a lifespan")

    def _say(self, failure: str) -> None:
        if self._said is not None and not self._said.done():
            self._said.set_result(failure)
        elif failure:
            self._application.log.error(f"the application's lifespan failed\n{failure}")


def _sentence(failure: str) -> str:
    last = failure.rpartition("\n")[2].strip() or failure.strip()
    return f"the application's startup (lifespan) failed: {quoted(last)}"
