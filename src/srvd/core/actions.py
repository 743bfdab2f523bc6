"""What the core wants done: each action is performed by `daemon/children/performer.py` without a choice of its own.

The decision is recorded in the core before the action is returned. Pure.
"""

from __future__ import annotations

from enum import Enum

from srvd.core.event_names import EVENTS, EventName
from srvd.core.model import Fault, Level, OpId, Revision
from srvd.ids import GenerationId, WorkerId
from srvd.record import Record


class WorkerCommand(Enum):
    """What a worker is told over its link."""

    SERVE = "serve"
    DRAIN = "drain"  # finish what is open, then leave; `seconds` until it is killed
    PROBE = "probe"  # call the health path on the application
    WARM = "warm"  # call the paths of `warm` on the application, and tell what has been imported
    REOPEN = "reopen"  # open the access log anew
    WAKE = "wake"  # go on, by SIGCONT
    DUMP = "dump"  # have the stacks of all threads in the log, by signal: a stuck worker reads no link


class ReadConfig(Record):
    """Read and check the configuration, bind what is new; answered by `ConfigRead` or `ConfigRefused`."""

    op: OpId


class Adopt(Record):
    """These configurations are in force: each pool serves by one of them, the newest is the one that is shown.

    Listeners that none of them names rest: they accept nothing, but a rollback may wake them.
    """

    revisions: tuple[Revision, ...]


class DropRevision(Record):
    """Nothing uses this configuration any more: close the listeners that only it named."""

    revision: Revision


class StartZygote(Record):
    generation: GenerationId
    revision: Revision


class StopZygote(Record):
    """Close its link: it leaves; answered by `ZygoteGone`."""

    generation: GenerationId


class KillZygote(Record):
    """SIGKILL; with `dump`, after its stacks went to the log."""

    generation: GenerationId
    dump: bool = False


class Teach(Record):
    """Have the zygote import what its canary had to; answered by `ZygoteLearned`."""

    generation: GenerationId
    modules: tuple[str, ...]


class Fork(Record):
    """Answered by `WorkerForked` or `ForkRefused`."""

    worker: WorkerId


class TellWorker(Record):
    worker: WorkerId
    told: WorkerCommand
    seconds: float = 0.0  # DRAIN: the limit; PROBE: the limit
    late: float = 0.0  # DRAIN: requests that were given nothing for so many seconds are not waited for; 0.0: all are
    leaving: bool = False  # DRAIN: the whole server stops: also empty the backlog, do not wait for idle clients


class KillWorker(Record):
    worker: WorkerId
    dump: bool = False  # first its stacks go to the log


class CountAnswers(Record):
    """Count what the workers of the pool have answered; answered by `AnswersCounted`."""

    pool: str


class ReopenLog(Record):
    """Open the daemon's own log anew; answered by `LogReopened`."""

    op: OpId


class CheckProgram(Record):
    """Ask the program on disk whether it can take over; answered by `ProgramChecked`."""

    op: OpId


class ReplaceProgram(Record):
    """Have it take over in this process, with all that is known and open; answered by `ProgramReplaced`, from there.

    Not performed if the operation has ended by then: a stop comes first.
    """

    op: OpId


class SealListeners(Record):
    """The server stops: let no new connection into the backlog, keep what waits there."""


class Progress(Record):
    op: OpId
    phase: str
    done: int = 0
    total: int = 0
    message: str = ""


class Persist(Record):
    """Write the state down for a next daemon: the answers that follow are not to be lost with this one."""


class Opened(Record):
    """The order with this ticket is (or has joined) this operation."""

    ticket: int
    op: OpId


class Refused(Record):
    ticket: int
    fault: Fault


class Ended(Record):
    """The operation ended; its state, result and fault are read from `Supervisor.operation(op)`."""

    op: OpId


class Note(Record):
    """One sentence for the log and, with its fields, one event for the watchers of its topic."""

    name: EventName
    text: str
    fields: tuple[tuple[str, str | int | float], ...] = ()

    @property
    def level(self) -> Level:
        return EVENTS[self.name].level

    @property
    def public_name(self) -> str:
        """As watchers are told: `worker.ready`; an operation's by its kind, `reload.failed`."""
        topic, _, what = self.name.value.partition(".")
        return f"{dict(self.fields)['kind']}.{what}" if topic == "operation" else self.name.value


class Exit(Record):
    """End the daemon with this exit code; `text` goes to stderr (and to the parent of `--daemonize`)."""

    code: int
    text: str = ""


Action = (
    ReadConfig | Adopt | DropRevision | StartZygote | StopZygote | KillZygote | Teach | Fork | TellWorker | KillWorker
    | CountAnswers | ReopenLog | CheckProgram | ReplaceProgram | SealListeners | Progress | Persist | Opened | Refused
    | Ended | Note | Exit
)  # fmt: skip
