"""The life of one worker of ASGI: lifespan, requests, tasks that are left, lifespan.

Serves no request itself: the loop's handlers do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from srvd.linux.processes import stacks
from srvd.worker.asgi.lifespan import Lifespan
from srvd.worker.asgi.task_stacks import tell_tasks
from srvd.worker.net.errors import ReaderGone

if TYPE_CHECKING:
    from srvd.worker.asgi.application import AsgiApplication
    from srvd.worker.asgi.context import AsgiContext

__all__ = ["Life"]

_LAST_WORDS = 1.0
"""Seconds for tasks that were cancelled at the end of a drain, for what they do last."""
_SHUTDOWN = 5.0
"""Seconds for the end of the lifespan."""
_WINDOW = 10.0
"""Seconds after which the lag that is shown begins anew, once the loop does something."""


class Life:
    """`mode`: the setting `lifespan`."""

    def __init__(self, context: AsgiContext, application: AsgiApplication, mode: str) -> None:
        self._context = context
        self._application = application
        self._lifespan = Lifespan(application, mode)
        self._report = _Report(context)
        context.loop.before_wait = self._before_wait
        stacks.tell_also(lambda: tell_tasks(context.loop.asyncio, context.cycles))

    def start(self) -> None:
        """Starts the application. Raises `LoadFailed`."""
        loop = self._context.loop
        asyncio.set_event_loop(loop.asyncio)
        try:
            self._finish(self._lifespan.start())
        except RuntimeError:
            if loop.running:
                raise
            # SIGTERM has stopped the loop.

    def run(self) -> None:
        """Serves until the loop is stopped, then ends what is left and the lifespan."""
        self._context.loop.run()
        self._finish(self._end_requests())
        self._finish(self._lifespan.stop(_SHUTDOWN))
        self._finish(_end_tasks())
        self._finish(self._context.loop.asyncio.shutdown_asyncgens())

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs this to its end, and raises what it raises. SystemExit in a task of the application ends that alone."""
        loop = self._context.loop.asyncio
        task = loop.create_task(work)
        while not task.done():
            with suppress(SystemExit, KeyboardInterrupt):
                loop.run_until_complete(task)
        task.result()

    async def _end_requests(self) -> None:
        cycles = self._context.cycles
        if tasks := [cycle.task for cycle in cycles.tasks if cycle.task is not None]:
            # Work behind responses that the clients have; or, if the time is over, requests that have not ended.
            await asyncio.wait(tasks, timeout=max(cycles.leaving.until - time.monotonic(), 0.0))
            for cycle in tuple(cycles.tasks):
                cycle.cancel()
            await asyncio.wait(tasks, timeout=_LAST_WORDS)

    def _before_wait(self) -> None:
        """Sends the heads of responses whose first part of the body is still to come."""
        unsent = self._application.unsent
        if unsent:
            for cycle in unsent:
                with suppress(ReaderGone):
                    cycle.send_head()
            unsent.clear()
        self._report.tell()


class _Report:
    """Keeps the facts about the event loop on the scoreboard. Has no timer: an idle loop has no news."""

    def __init__(self, context: AsgiContext) -> None:
        self._loop = context.loop
        self._cycles = context.cycles
        self._recorder = context.recorder
        self._told = (0, 0)
        self._lag = self._until = 0.0

    def tell(self) -> None:
        """Called before each wait: the time since the end of the last one is how long the loop looked after nobody."""
        now = time.monotonic()
        took, websockets = now - self._loop.read_at, len(self._cycles.websockets)
        counts = self._cycles.in_flight, websockets
        if took <= self._lag and now < self._until and counts == self._told:
            return
        if now >= self._until:
            self._lag, self._until = 0.0, now + _WINDOW
        self._lag, self._told = max(took, self._lag), counts
        self._recorder.event_loop(*counts, self._lag)


async def _end_tasks() -> None:
    """Cancels the tasks that the application has begun by itself, so that they can clean up."""
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_LAST_WORDS)
