"""The events that watchers are told, each with a name that stays: `srvctl events`, and the page that is made of this.

Chooses nothing and words nothing: the sentence of an event is where the event happens. Pure.
"""

from __future__ import annotations

from srvd.core.model import Key, Level
from srvd.record import Record

__all__ = ["EVENTS", "About", "EventName"]


class EventName(Key):
    """`topic.what`. An operation's event is told by the operation's kind: `reload.failed` for `operation.failed`."""

    DAEMON_READY = "daemon.ready"
    DAEMON_ADOPTED = "daemon.adopted"
    DAEMON_STOP_HURRIED = "daemon.stop_hurried"

    POOL_READY = "pool.ready"
    POOL_DEGRADED = "pool.degraded"
    POOL_CRASHING = "pool.crashing"
    POOL_RECOVERED = "pool.recovered"
    POOL_REMOVED = "pool.removed"
    POOL_WORN_AT_ONCE = "pool.worn_at_once"
    POOL_OUTGROWN = "pool.outgrown"

    GENERATION_LOADED = "generation.loaded"
    GENERATION_LOAD_TIMEOUT = "generation.load_timeout"
    GENERATION_WARNED = "generation.warned"
    GENERATION_MIXED = "generation.mixed"
    GENERATION_ACTIVE = "generation.active"
    GENERATION_BAKED = "generation.baked"
    GENERATION_TAKEN_BACK = "generation.taken_back"
    GENERATION_EXPIRED = "generation.expired"
    GENERATION_ZYGOTE_DIED = "generation.zygote_died"
    GENERATION_FORMER_LOST = "generation.former_lost"
    GENERATION_ZYGOTE_STUCK = "generation.zygote_stuck"
    GENERATION_LEFT_PROCESSES = "generation.left_processes"

    WORKER_NOT_FORKED = "worker.not_forked"
    WORKER_READY = "worker.ready"
    WORKER_BOOT_TIMEOUT = "worker.boot_timeout"
    WORKER_WORN = "worker.worn"
    WORKER_REQUEST_TIMEOUT = "worker.request_timeout"
    WORKER_SILENT = "worker.silent"
    WORKER_ANSWERED = "worker.answered"
    WORKER_CONTINUED = "worker.continued"
    WORKER_TRACED = "worker.traced"
    WORKER_MISFIT = "worker.misfit"
    WORKER_DRAIN_TIMEOUT = "worker.drain_timeout"
    WORKER_KILLED_AGAIN = "worker.killed_again"
    WORKER_LEFT = "worker.left"
    WORKER_DIED = "worker.died"
    WORKER_LEFT_PROCESSES = "worker.left_processes"

    OPERATION_ASKED = "operation.asked"
    OPERATION_JOINED = "operation.joined"
    OPERATION_COMMITTED = "operation.committed"
    OPERATION_DONE = "operation.done"
    OPERATION_FAILED = "operation.failed"
    OPERATION_ROLLED_BACK = "operation.rolled_back"
    OPERATION_CANCELLED = "operation.cancelled"

    @property
    def topic(self) -> str:
        return self.value.partition(".")[0]


class About(Record):
    """What an event means, its level, and the fields that it always has beside `level` and `text`.

    `quotes`: its text may hold words of the application, which a viewer is not told.
    """

    level: Level
    meaning: str
    fields: str = ""
    quotes: bool = False


_INFO, _WARNING, _ERROR = Level.INFO, Level.WARNING, Level.ERROR

EVENTS: dict[EventName, About] = {
    EventName.DAEMON_READY: About(_INFO, "the first start has ended well: all pools serve"),
    EventName.DAEMON_ADOPTED: About(_WARNING, "the former daemon died; this one has taken over its workers", "workers"),
    EventName.DAEMON_STOP_HURRIED: About(_WARNING, "a stop no longer waits for requests"),
    EventName.POOL_READY: About(_INFO, "as many workers serve as are desired, which was not so before", "pool"),
    EventName.POOL_DEGRADED: About(
        _WARNING, "fewer workers serve than desired, and no order is the reason", "pool serving desired"
    ),
    EventName.POOL_CRASHING: About(_ERROR, "new workers die again and again", "pool"),
    EventName.POOL_RECOVERED: About(_INFO, "it is no longer crashing", "pool"),
    EventName.POOL_REMOVED: About(_INFO, "its workers leave: it is out of the configuration, or srvd stops", "pool"),
    EventName.POOL_WORN_AT_ONCE: About(
        _ERROR, "workers reach max_age or max_requests as soon as they serve", "pool worker"
    ),
    EventName.POOL_OUTGROWN: About(_ERROR, "new workers are over max_rss, too: replacing does not help", "pool worker"),
    EventName.GENERATION_LOADED: About(_INFO, "a zygote has loaded the application, or may fork", "generation"),
    EventName.GENERATION_LOAD_TIMEOUT: About(_ERROR, "the load was longer than boot_timeout", "generation"),
    EventName.GENERATION_WARNED: About(
        _WARNING, "the zygote has a remark: not preloaded, a module not learned", "generation", quotes=True
    ),
    EventName.GENERATION_MIXED: About(_WARNING, "a process has imported code of another release", "generation file"),
    EventName.GENERATION_ACTIVE: About(_INFO, "it is the generation that serves from now on", "generation"),
    EventName.GENERATION_BAKED: About(_INFO, "its bake is over, and it stays", "generation"),
    EventName.GENERATION_TAKEN_BACK: About(
        _ERROR, "it was worse while it baked; the former one serves again", "generation former", quotes=True
    ),
    EventName.GENERATION_EXPIRED: About(_INFO, "it is no longer kept for a rollback", "generation"),
    EventName.GENERATION_ZYGOTE_DIED: About(
        _ERROR, "the zygote of the active generation died and is replaced; its workers serve on", "generation"
    ),
    EventName.GENERATION_FORMER_LOST: About(
        _WARNING, "the zygote of the former generation died: no rollback to it", "generation"
    ),
    EventName.GENERATION_ZYGOTE_STUCK: About(_ERROR, "its zygote does not fork, and is killed", "generation"),
    EventName.GENERATION_LEFT_PROCESSES: About(_WARNING, "its zygote has left processes behind", "generation"),
    EventName.WORKER_NOT_FORKED: About(_WARNING, "the system refused a process; it is tried again", "worker"),
    EventName.WORKER_READY: About(_INFO, "it has booted", "worker"),
    EventName.WORKER_BOOT_TIMEOUT: About(_ERROR, "it was not ready within boot_timeout, and is killed", "worker"),
    EventName.WORKER_WORN: About(_INFO, "it has reached max_requests, max_age or max_rss; a successor boots", "worker"),
    EventName.WORKER_REQUEST_TIMEOUT: About(
        _ERROR, "a request was given nothing for request_timeout; a successor boots", "worker request"
    ),
    EventName.WORKER_SILENT: About(_ERROR, "it does not answer while clients wait; a successor boots", "worker"),
    EventName.WORKER_ANSWERED: About(_WARNING, "it was silent, has answered, and stays", "worker"),
    EventName.WORKER_CONTINUED: About(_WARNING, "a signal had stopped it; srvd has continued it", "worker"),
    EventName.WORKER_TRACED: About(_WARNING, "a debugger holds it while clients wait", "worker"),
    EventName.WORKER_MISFIT: About(_ERROR, "it said what it cannot say now, and is killed", "worker"),
    EventName.WORKER_DRAIN_TIMEOUT: About(_WARNING, "it has not left in its time, and is killed", "worker"),
    EventName.WORKER_KILLED_AGAIN: About(_ERROR, "it is still there after SIGKILL", "worker"),
    EventName.WORKER_LEFT: About(
        _INFO, "it was told to leave, or killed for what was told before, and is gone", "worker cause"
    ),
    EventName.WORKER_DIED: About(_ERROR, "it ended otherwise: `srvctl why` has the rest", "worker cause"),
    EventName.WORKER_LEFT_PROCESSES: About(_WARNING, "it has left processes behind", "worker"),
    EventName.OPERATION_ASKED: About(_INFO, "an order was taken", "op kind actor"),
    EventName.OPERATION_JOINED: About(_INFO, "the same order came again, and waits for the same end", "op kind actor"),
    EventName.OPERATION_COMMITTED: About(_INFO, "the new generation takes over; its workers accept", "op kind"),
    EventName.OPERATION_DONE: About(_INFO, "what was asked for is true", "op kind state"),
    EventName.OPERATION_FAILED: About(_WARNING, "it is not, for the reason in the text", "op kind state", quotes=True),
    EventName.OPERATION_ROLLED_BACK: About(
        _WARNING, "it was true for a moment; the former generation serves again", "op kind state", quotes=True
    ),
    EventName.OPERATION_CANCELLED: About(_WARNING, "an operator has cancelled it", "op kind state"),
}
"""What is known of each name."""
