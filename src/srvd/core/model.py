"""The words of the supervisor: the two lives, what a pool is asked to be, orders and operations.

No decisions here, and nothing that knows a clock, a pid's meaning or a file descriptor. Pure.

Values that cross the border of the core are named tuples, not frozen dataclasses: creating one slotted dataclass
costs 0.7 ms of import time, a named tuple 0.1 ms, and the daemon's start waits for about forty of them.
"""

from __future__ import annotations

from enum import Enum
from typing import NewType

from srvd.record import Record

Pid = NewType("Pid", int)
"""An attribute of a worker, never its identity."""

OpId = NewType("OpId", int)
"""Counts operations from 1 within one instance of the daemon."""

Revision = NewType("Revision", int)
"""Counts configurations as they were read; the daemon keeps the settings behind it, the core only the number."""


class Key(Enum):
    """Members are keys of dicts that are looked up for each event: `Enum.__hash__` is a call in Python."""

    __hash__ = object.__hash__


class Level(Enum):
    """How grave a sentence of the log is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class PoolState(Enum):
    """How a pool is, in one word of `srvctl status`."""

    STARTING = "starting"  # it has never been ready
    READY = "ready"  # as many workers serve as are desired
    DEGRADED = "degraded"  # fewer do
    CRASHING = "crashing"  # new workers die again and again
    PAUSED = "paused"  # by an order
    STOPPING = "stopping"  # with the daemon, or out of the configuration


class Phase(Key):
    """A worker's life."""

    ASKED = "asked"  # decided; its pid is not known yet
    BOOTING = "booting"  # forked; has not said READY
    STANDBY = "standby"  # booted, not accepting
    OPENING = "opening"  # told to accept; has not confirmed
    SERVING = "serving"
    DRAINING = "draining"  # told to finish and leave
    KILLED = "killed"  # SIGKILL sent, death not seen
    CANCELLED = "cancelled"  # retired before its pid was known: killed as soon as it is
    GONE = "gone"


class Stage(Key):
    """A generation's life."""

    LOADING = "loading"  # its zygote imports the application
    BOOTING = "booting"  # its canary boots
    PROBING = "probing"  # its canary answers the health probe
    WARMING = "warming"  # its canary is asked the paths of `warm`; its zygote imports what that and the probe took
    STAGING = "staging"  # the rest of its workers boot, up to STANDBY
    ACTIVE = "active"
    PARKED = "parked"  # no workers; its zygote waits for a rollback
    RETIRING = "retiring"  # its workers drain; its zygote goes with the last of them
    FAILED = "failed"  # never came to serve; its remains are being removed
    GONE = "gone"


class Replacement(Key):
    """Why a worker that serves is replaced: it leaves when its successor serves."""

    NONE = ""  # it stays
    RECYCLE = "recycle"  # an order
    EXPIRED = "worn"  # it has served long enough, or is over max_rss
    OVERDUE = "overdue"  # the application has given nothing to a request for request_timeout
    SILENT = "silent"  # it does not answer the daemon while clients wait


class ExitReason(Key):
    """Why a worker was told to leave, or killed. The values are words of the sentence "was told to leave (…)"."""

    NONE = ""  # it was not
    REPLACED = "replaced"  # its successor serves
    RECYCLE = "recycle"  # the same, by an order
    EXPIRED = "worn"  # the same, after it had served long enough
    OVERDUE = "overdue"  # the same, after a request that was given nothing
    SILENT = "silent"  # the same, after it had not answered
    SCALED_DOWN = "scaled down"
    PAUSED = "paused"
    POOL_REMOVED = "pool removed"  # a reload has taken its pool out of the configuration
    STOPPED = "stopped"  # with the daemon
    STOPPED_NOW = "stopped in a hurry"  # the same, without an end of its requests
    START_FAILED = "the start failed"
    ABANDONED = "trial abandoned"  # its generation never came into force
    DAEMON_DIED = "the daemon died"  # before it had accepted anything
    LEFT_ALONE = "left alone by a daemon that died"  # and no other daemon came in time
    BOOT_TIMEOUT = "boot_timeout"  # not ready in time, or not accepting
    HEALTH_TIMEOUT = "health_timeout"  # the probe was not answered in time
    HEALTH_FAILED = "health_failed"  # the probe was answered badly
    DRAIN_TIMEOUT = "drain_timeout"  # its requests were not finished in time
    MISFIT = "misfit"  # it said what it cannot say in its phase


class Cause(Key):
    """How a worker ended, in one word; `backoff.summary` says it in a sentence."""

    BOOT_FAILED = "boot_failed"  # it could not boot
    BOOT_TIMEOUT = "boot_timeout"
    HEALTH_FAILED = "health_failed"
    HEALTH_TIMEOUT = "health_timeout"
    DRAIN_TIMEOUT = "drain_timeout"
    REQUEST_TIMEOUT = "request_timeout"  # it was stuck in a request
    SILENT = "silent"  # it did not answer while clients waited
    MISFIT = "misfit"  # it broke the protocol of its link
    OUT_OF_MEMORY = "out_of_memory"  # the kernel killed it for memory
    SIGNAL = "signal"  # a signal that srvd did not send
    EXITED = "exited"  # by itself
    UNKNOWN = "unknown"  # its parent had died, and with it the status
    DIED_LEAVING = "died_leaving"  # told to leave, it ended otherwise
    RETIRED = "retired"  # told to leave, it left
    RECYCLED = "recycled"  # the same, to be replaced
    ABANDONED = "abandoned"  # with its generation, which was given up
    ZYGOTE = "zygote"  # a zygote that died


class Strategy(Enum):
    AUTO = "auto"  # blue-green while the projected memory fits, else rolling
    BLUE_GREEN = "blue-green"
    ROLLING = "rolling"


class PoolSpec(Record):
    """What the configuration says of one pool. Times in seconds."""

    name: str
    kind: str = "wsgi"
    workers: int = 1
    boot_timeout: float = 60.0
    drain_timeout: float = 30.0
    request_timeout: float = 0.0  # 0: no limit
    threads: int = 1  # of one worker, in which requests run
    max_rss: int = 0  # bytes of one worker; 0: no limit
    health: str = ""  # path of the probe; empty: booting is enough
    health_timeout: float = 5.0
    warm: bool = False  # there are paths that a canary is asked besides
    bake: float = 10.0
    bake_errors: int = 0  # percentage points of 5xx more than the former generation's that switch back; 0: any
    rollback_window: float = 600.0
    strategy: Strategy = Strategy.AUTO
    developed: bool = False  # a worker may be in a debugger for any time


class Answers(Record):
    """Responses that were given."""

    total: int = 0
    failed: int = 0  # 5xx


class Headroom(Record):
    """Memory as measured when a reload begins; zeros mean that nothing could be measured."""

    available_bytes: int = 0
    worker_bytes: int = 0  # what one more worker of the pool is expected to cost


class Actor(Record):
    """The source of an order: the peer by its credentials, or the daemon itself."""

    uid: int
    pid: int
    name: str  # "root", "deploy", "srvd" for the daemon's own decisions, "signal SIGHUP"

    def __str__(self) -> str:
        return f"{self.name} (uid {self.uid}, pid {self.pid})" if self.pid else self.name


class Kind(Key):
    """What an operation does."""

    START = "start"
    SCALE = "scale"
    RELOAD = "reload"
    ROLLBACK = "rollback"
    REPAIR = "repair"  # a lost zygote is loaded anew
    RECYCLE = "recycle"
    PAUSE = "pause"
    RESUME = "resume"
    REOPEN = "reopen"  # the logs
    UPGRADE = "upgrade"  # the daemon's own program
    STOP = "stop"


class Order(Record):
    """What was asked. `pool` empty: every pool."""

    kind: Kind
    pool: str = ""
    size: int = 0  # scale: the size, or the difference when `relative`
    relative: bool = False
    reset: bool = False  # scale: back to the configured size
    worker: str = ""  # recycle: one worker, "" for all
    to: str = ""  # rollback: a generation, "" for the former one
    wait_bake: bool = False  # reload, rollback: end only when the bake is over
    now: bool = False  # stop: do not wait for requests
    check: bool = False  # upgrade: only ask the new program whether it could take over
    timeout: float = 0.0  # seconds until the operation gives up and restores; 0: its parts' own limits
    busy: tuple[str, ...] = ()  # scale: workers seen busy when the order came; idle ones leave first


class OpState(Enum):
    QUEUED = "queued"
    RUNNING = "running"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (OpState.QUEUED, OpState.RUNNING, OpState.COMMITTING)


class ErrorCode(Enum):
    """The codes of `errors.py`, one for each class, as a fault names them; a test compares the two."""

    INTERNAL = "internal"
    BAD_FRAME = "bad_frame"
    PROTOCOL_MISMATCH = "protocol_mismatch"
    BAD_ARGS = "bad_args"
    UNKNOWN_METHOD = "unknown_method"
    PERMISSION = "permission"
    NO_SUCH_POOL = "no_such_pool"
    NO_SUCH_WORKER = "no_such_worker"
    NO_SUCH_OPERATION = "no_such_operation"
    CONFLICT = "conflict"
    BUSY = "busy"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    LOAD_FAILED = "load_failed"
    BOOT_FAILED = "boot_failed"
    HEALTH_FAILED = "health_failed"
    CRASHING = "crashing"
    ROLLED_BACK = "rolled_back"
    PARTIAL = "partial"
    CONFIG_INVALID = "config_invalid"
    UNSUPPORTED = "unsupported"
    SHUTTING_DOWN = "shutting_down"
    NO_DAEMON = "no_daemon"
    SYSTEM = "system"


class Fault(Record):
    """Why something failed: an error code of the wire, a sentence, and what proves it."""

    code: ErrorCode
    message: str
    hint: str = ""
    step: str = ""
    pool: str = ""
    traceback: str = ""


class Death(Record):
    """How a worker's process ended, with what was seen of it. Bytes and seconds."""

    exit_code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    request_line: str = ""  # the request it was in, "" when idle
    request_age: float = 0.0
    requests: int = 0
    stderr: str = ""  # the last lines it wrote
    unseen: bool = False  # the status went to a parent that had died
    stacks: str = ""  # of its threads, when it was last made to tell: before it was killed for being late
    behind: tuple[str, ...] = ()  # processes that it left, "sleep 777 (pid 4711)"
