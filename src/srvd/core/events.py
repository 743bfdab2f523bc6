"""What the core is told: every result of every effect, every order, and the passing of a deadline.

No behaviour; the handlers are in `supervisor.py`. Pure.
"""

from __future__ import annotations

from enum import Enum

from srvd.core.model import Actor, Answers, Death, Fault, Headroom, OpId, Order, Pid, PoolSpec, Revision
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record


class WorkerReport(Enum):
    """What a worker says over its link."""

    READY = "ready"  # booted, in standby
    SERVING = "serving"  # accepts
    CLOSED = "closed"  # was told to drain, and accepts no more
    HEALTHY = "healthy"  # the probe was answered with 2xx or 3xx
    UNHEALTHY = "unhealthy"  # it was not; `text` says how
    FAILED = "failed"  # could not boot; `text` is the traceback
    EXPIRED = "expired"  # has served long enough; `text` says why
    REOPENED = "reopened"  # its access log is open anew, or, with `text`, is not
    LEAVING = "leaving"  # drains without having been told: no daemon came for it in its time
    BYE = "bye"  # drained, about to exit


class Started(Record):
    """The first event: bring these pools up."""

    revision: Revision
    specs: tuple[PoolSpec, ...]
    actor: Actor


class Resumed(Record):
    """The first event of a daemon that goes on with the state of one that died, and which of the workers came to it.

    `strangers` are of the family, but not known: they came to be after the state was written, and are sent away.
    """

    serving: tuple[WorkerId, ...]  # they accept
    leaving: tuple[WorkerId, ...] = ()  # they drain
    strangers: tuple[WorkerId, ...] = ()  # zygotes with serial 0


class Ordered(Record):
    """An order came; answered at once by `Opened` or `Refused` with the same ticket."""

    ticket: int
    order: Order
    actor: Actor


class CancelAsked(Record):
    ticket: int
    op: OpId
    actor: Actor


class ConfigRead(Record):
    """The configuration of a reload was read and checked, its new listeners are bound."""

    op: OpId
    revision: Revision
    specs: tuple[PoolSpec, ...]
    headroom: tuple[tuple[str, Headroom], ...] = ()
    warnings: tuple[str, ...] = ()


class ConfigRefused(Record):
    op: OpId
    fault: Fault


class ZygoteLoaded(Record):
    generation: GenerationId
    preloaded: bool
    notes: tuple[str, ...] = ()  # why it was not preloaded, and other warnings
    at: str = ""  # by the wall clock, as people write it
    folder: str = ""  # the real path of where it was loaded


class ZygoteFailed(Record):
    """The application could not be loaded; the zygote leaves by itself."""

    generation: GenerationId
    fault: Fault


class ZygoteGone(Record):
    generation: GenerationId
    cause: str  # "exit 0", "signal 9"
    stderr: str = ""  # the last lines it wrote; a dump of its stacks when it was killed for being late
    behind: tuple[str, ...] = ()  # processes that it left


class ZygoteLearned(Record):
    """It has imported what it was taught; the notes say what it could not."""

    generation: GenerationId
    notes: tuple[str, ...] = ()


class CodeMixed(Record):
    """A worker or the zygote has imported a file that is newer than the generation's load."""

    generation: GenerationId
    file: str


class WorkerForked(Record):
    worker: WorkerId
    pid: Pid


class ForkRefused(Record):
    """No process came to be; transient by nature (EAGAIN, ENOMEM, EMFILE, no slot)."""

    worker: WorkerId
    reason: str


class WorkerSaid(Record):
    worker: WorkerId
    word: WorkerReport
    text: str = ""


class WorkerWarmed(Record):
    """It was asked the paths of `warm`; the modules that it has imported since it was ready."""

    worker: WorkerId
    modules: tuple[str, ...] = ()


class WorkerGone(Record):
    worker: WorkerId
    death: Death


class RequestOverdue(Record):
    """A request is older than `request_timeout`; told once for each request."""

    worker: WorkerId
    line: str
    age: float


class WorkerSilent(Record):
    """Clients wait for it, it has not answered the daemon for `seconds`, and it is in no request, or stopped."""

    worker: WorkerId
    seconds: float
    stopped: bool = False  # by a signal: SIGSTOP


class WorkerAnswered(Record):
    """One that was silent has answered."""

    worker: WorkerId


class WorkerStopped(Record):
    """A signal has stopped it, SIGSTOP mostly; a debugger does it otherwise. Perhaps told more than once."""

    worker: WorkerId


class WorkerContinued(Record):
    """It goes on, by SIGCONT: srvd's, or another program's."""

    worker: WorkerId


class WorkerHeld(Record):
    """Clients wait for it, and a debugger holds it; told once for each time."""

    worker: WorkerId


class WorkerOutgrew(Record):
    """It has more resident memory than `max_rss`; told at every look, as long as that is so. Bytes."""

    worker: WorkerId
    rss: int
    limit: int


class AnswersCounted(Record):
    """What each worker of the pool that lives has answered."""

    pool: str
    counts: tuple[tuple[WorkerId, Answers], ...]


class LogReopened(Record):
    """The daemon's own log is open anew, or, with a problem, is not."""

    problem: str = ""


class ProgramChecked(Record):
    """What the new program's self-check said; versions of srvd, `new` "" when it did not come so far."""

    op: OpId
    old: str
    new: str
    fault: Fault | None = None


class ProgramReplaced(Record):
    """The daemon runs, after a program took its place – the new one, or, with a fault, the former one again. Also said
    by the former one when it could not be left at all."""

    op: OpId
    fault: Fault | None = None


class Tick(Record):
    """A deadline has passed."""


Watched = (
    RequestOverdue | WorkerSilent | WorkerAnswered | WorkerStopped | WorkerContinued | WorkerHeld | WorkerOutgrew
)  # fmt: skip

OfWorker = WorkerForked | ForkRefused | WorkerSaid | WorkerGone | Watched

Event = (
    Started | Resumed | Ordered | CancelAsked | ConfigRead | ConfigRefused | ZygoteLoaded | ZygoteFailed | ZygoteGone
    | ZygoteLearned | CodeMixed | WorkerWarmed | OfWorker | AnswersCounted | LogReopened | ProgramChecked
    | ProgramReplaced | Tick
)  # fmt: skip
