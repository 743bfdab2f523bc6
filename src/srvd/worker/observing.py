"""What watches the requests of one worker: a recorder for each thread, the access log, the count of requests.

Observes nothing by itself: `observe/` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from srvd.linux.scoreboard import lanes_of
from srvd.wire import links
from srvd.worker.observe.access_buffer import AccessBuffer
from srvd.worker.observe.access_log import AccessLog, SelectiveLog
from srvd.worker.observe.completion import Completion
from srvd.worker.observe.recorder import Recorder
from srvd.worker.recycling import Recycling

if TYPE_CHECKING:
    from srvd.http.access_line import Names
    from srvd.log import Log
    from srvd.worker.app.hooks import Hook
    from srvd.worker.boot import Boot
    from srvd.worker.loop import Loop
    from srvd.worker.supervision.link import Link

__all__ = ["Observers", "observe"]


class Observers(NamedTuple):
    recycling: Recycling
    access: AccessLog | None
    recorders: Sequence[Recorder]
    """The loop's, and with several threads one more for each of them."""

    @property
    def kinds(self) -> Sequence[type]:
        """The classes whose methods lead back to srvd from the application's code."""
        return (Recorder, AccessLog)


def observe(boot: Boot, after_request: Hook | None, names: Names, link: Link, loop: Loop, log: Log) -> Observers:
    """`names`: of the facts of a request, in the convention's scope."""
    settings = boot.settings
    recycling = Recycling(settings, loop, lambda reason: link.say(links.Expired(reason)))
    access = None
    if settings.access_log:
        kind = SelectiveLog if settings.access_log_skip else AccessLog
        access = kind(
            settings.access_log, settings.access_log_format, loop, log, boot.buffer or AccessBuffer(), names,
            lambda problem: link.say(links.Reopened(problem)), int(settings.access_log_mode, 8),
        )  # fmt: skip
        if isinstance(access, SelectiveLog):
            access.leave_out(settings.access_log_skip, names)
    completion = Completion.needed(access, after_request, recycling, log)
    lanes = [boot.board.lane(boot.slot, number) for number in range(lanes_of(settings.threads))]
    recorders = [Recorder(lane, link.ring, completion) for lane in lanes]
    return Observers(recycling, access, recorders)
