"""Every command of the control socket, declared once: name, role, typed fields, help.

The daemon's check of a request, the `srvctl` command, its reference page and its tests come from `COMMANDS`. Says
nothing about what a command does: `daemon/control/backend.py` does. Pure.

Imported at each start of `srvctl`: no dataclass (0.7 ms each), no enum, nothing that needs `re` or `inspect`.
"""

from __future__ import annotations

from typing import Any

from srvd.errors import UnknownMethod
from srvd.record import Record

__all__ = ["ADMIN", "COMMANDS", "OPERATOR", "ROLES", "TOPICS", "VIEWER", "Command", "Field", "command", "may"]

VIEWER = "viewer"
OPERATOR = "operator"
ADMIN = "admin"
ROLES = (VIEWER, OPERATOR, ADMIN)
"""Roles in rising order: each may do all that the roles before it may."""

TOPICS = ("daemon", "pool", "generation", "worker", "operation")
"""The topics of events."""

READY = "ready"
"""The state of a pool with which `srvctl status` exits 0: as many workers serve as are desired."""

NAME_LIMIT = 128
"""Characters of a pool's or worker's name."""

MOST_SECONDS = 1e6
"""Longest wait in seconds, about eleven days: fits every timer."""


class Field(Record):
    """One argument of a command. An argument that is not sent has the value `default`; null is never sent.

    kind: "pool", "worker", "generation" (texts), "int", "seconds" (a number), "moment" (Unix seconds), "flag" (a
        bool), "topics" (a list of texts of `TOPICS`).
    """

    name: str
    kind: str
    help: str
    default: Any = None
    required: bool = False
    least: float = 0
    most: float = MOST_SECONDS


class Command(Record):
    name: str  # on the wire
    role: str  # the lowest that may call it
    summary: str  # one line, ends without a full stop
    fields: tuple[Field, ...] = ()
    help: str = ""  # further paragraphs
    examples: tuple[str, ...] = ()
    cli: str = ""  # words of the command line, where they differ from the name
    changes: bool = False  # opens an operation
    streams: bool = False
    takes_time: bool = False  # a question to workers and zygotes; answered when they have

    @property
    def words(self) -> tuple[str, ...]:
        """The words typed after `srvctl`: ("op", "list")."""
        return tuple((self.cli or self.name).split("."))


_POOL = Field("pool", "pool", "The pool; may be left out if there is only one", "")
_EVERY = Field("pool", "pool", "Only this pool; without it, every pool", "")
_WORKER = Field("worker", "worker", "One worker, as POOL/GENERATION#SERIAL, POOL/GENERATION.SERIAL or its pid", "")
_ID = Field("id", "int", "Number of the operation", required=True, least=1, most=2**53)
_TIMEOUT = Field("timeout", "seconds", "Give up after this time and restore the former state; 0: no limit", 0.0)
_WAIT = Field("wait", "flag", "Answer when the operation is done; false: as soon as it has begun", True)
_BAKE = Field(
    "bake",
    "flag",
    "Wait for the end of the bake, too; exits 1 if the bake brought the former generation back",
    False,
)
_OFFSET = Field("offset", "int", "Skip this many, counted from the newest", 0, most=1 << 31)

COMMANDS: tuple[Command, ...] = (
    Command(
        "ping",
        VIEWER,
        "Ask the daemon for a sign of life",
        help="Answers at once, whatever the pools are doing. Exit code 69 says that no daemon answers.",
        examples=("srvctl ping",),
    ),
    Command(
        "status",
        VIEWER,
        "Show pools, workers, listeners and running operations",
        help=(
            "Exit code 0 says that every pool is ready: the configured number of workers is serving. 3 says that "
            "one is starting, degraded, crashing, paused or stopping.\n\n"
            "A size set with `scale` is shown beside the configured one: 8 (config 4). REQUESTS includes those of "
            "workers that have left. RSS is the sum of the workers' resident memory; shared pages count once for each."
        ),
        examples=("srvctl status", "srvctl status --json | jq '.pools[].state'"),
    ),
    Command(
        "workers",
        VIEWER,
        "List workers with what they are doing",
        (
            _EVERY,
            _OFFSET._replace(help="Skip this many workers"),
            Field("limit", "int", "Most workers to list", 500, least=1, most=500),
        ),
        help=(
            "Shows of each its pid, requests served, memory, connections, and the request it is in with its age. Of a "
            "worker with an event loop also how many requests, event streams and WebSockets are in flight, how many "
            "of these are WebSockets, and the longest time for which the loop looked after nobody lately (LAG)."
        ),
        examples=("srvctl workers", "srvctl workers web"),
    ),
    Command(
        "scale",
        OPERATOR,
        "Set the number of workers of a pool",
        (
            _POOL,
            Field("size", "int", "The number of workers", least=0, most=65536),
            Field("delta", "int", "This many more, or fewer if negative", least=-65536, most=65536),
            Field("reset", "flag", "Return to the configured size", False),
            _TIMEOUT._replace(help="Restore the old size if the new workers do not serve after this time; 0: no limit"),
            _WAIT,
        ),
        help=(
            "SIZE is a number of workers, or a difference: +2, -2.\n\n"
            "Returns when the added workers serve. If they do not come up, the old size is restored, and the error "
            "says why. When there are to be fewer, idle workers leave first, and busy ones finish their requests.\n\n"
            "The new size is kept over reloads and upgrades until it is changed or reset with `--reset`."
        ),
        examples=("srvctl scale 8", "srvctl scale +2 web", "srvctl scale -2 web", "srvctl scale --reset web"),
        changes=True,
    ),
    Command(
        "reload",
        OPERATOR,
        "Load the configuration and the application anew, without a gap",
        (_EVERY, _BAKE, _TIMEOUT, _WAIT),
        help=(
            "A new generation is loaded, booted and probed beside the old one, which serves until the new one does. If "
            "any step fails, nothing has changed: the old generation still serves with all its workers, and the error "
            "names the step and the reason, with the application's traceback.\n\n"
            "For some time afterwards `rollback` brings the old generation back at once."
        ),
        examples=("srvctl reload", "srvctl reload web --bake", "srvctl reload --no-wait"),
        changes=True,
    ),
    Command(
        "rollback",
        OPERATOR,
        "Go back to the former generation",
        (
            _POOL,
            Field("to", "generation", "Go back to this generation, such as web@2; any that is kept loaded", ""),
            _BAKE,
            _TIMEOUT,
            _WAIT,
        ),
        help=(
            "The former generation is kept loaded for some time after a reload (setting rollback_window). Prints "
            "which generation serves now, and which one it replaced.\n\n"
            "After a rollback, the only other generation that is loaded is the one that was just left. So a second "
            "rollback is refused, unless `--to` names that generation."
        ),
        examples=("srvctl rollback web", "srvctl rollback web --to web@2"),
        changes=True,
    ),
    Command(
        "recycle",
        OPERATOR,
        "Replace workers by fresh ones of the same generation",
        (_POOL, _WORKER, _TIMEOUT, _WAIT),
        help=(
            "TARGET is a pool or one worker: web/3#17, or, where the shell treats # specially, web/3.17 or its pid. "
            "Each replacement is ready before the worker it replaces leaves. No code is loaded anew: `reload` does "
            "that. Only in a pool that is not preloaded each new worker loads the code that is on disk; the answer "
            "says so then."
        ),
        examples=("srvctl recycle web", "srvctl recycle web/3#17"),
        changes=True,
    ),
    Command(
        "pause",
        OPERATOR,
        "Stop accepting connections; workers stay",
        (_POOL, _WAIT),
        help="Requests on accepted connections are answered; new connections wait in the listener's queue until "
        "`resume`.",
        examples=("srvctl pause web",),
        changes=True,
    ),
    Command(
        "resume",
        OPERATOR,
        "Accept connections again after a pause",
        (_POOL, _WAIT),
        examples=("srvctl resume web",),
        changes=True,
    ),
    Command(
        "reopen",
        OPERATOR,
        "Open the log files anew, after they were moved away",
        (_TIMEOUT._replace(help="Wait at most this long for workers to answer; 0: 5 s"), _WAIT),
        help=(
            "Reopens the access logs of all workers and the daemon's log file. Returns once all processes write to the "
            "new files, or lists those that do not yet: a worker whose threads are all in requests reopens its log "
            "when one of them has ended. SIGUSR1 to the daemon does the same."
        ),
        examples=("srvctl reopen", "mv access.log access.log.1 && srvctl reopen && gzip access.log.1"),
        changes=True,
    ),
    Command(
        "upgrade",
        ADMIN,
        "Replace the daemon's program by the one that is installed now",
        (
            Field("check", "flag", "Only check whether the new program could take over; change nothing", False),
            _WAIT,
        ),
        help=(
            "Install the new version over the old one first, in the environment that the daemon was started from. The "
            "new program then checks itself: its imports, the configuration, and whether it can read the state of this "
            "daemon. Then it takes over in the same process: the pid, listeners, workers, zygotes, operations and "
            "their history stay, and no request is lost. Workers keep the code that they were started with; `reload` "
            "gives them the new one.\n\n"
            "Prints the old and the new version. If the new program cannot take over after all, the old one goes on, "
            "and the error says why. SIGUSR2 to the daemon does the same."
        ),
        examples=(
            "srvctl upgrade",
            "srvctl upgrade --check",
            ".venv/bin/pip install ./srvd-VERSION-py3-none-any.whl && srvctl upgrade",
        ),
        changes=True,
    ),
    Command(
        "stop",
        ADMIN,
        "Stop the daemon and everything it runs",
        (
            Field("now", "flag", "Do not wait for requests that are under way", False),
            _TIMEOUT._replace(help="Kill workers that still run after this time; 0: the pools' drain_timeout"),
            _WAIT,
        ),
        help=(
            "Answers the requests on accepted connections and those that wait in the listeners' queues first. Returns "
            "when the daemon's process has ended. A second stop, or one with `--now`, shortens the first."
        ),
        examples=("srvctl stop", "srvctl stop --timeout 10s", "srvctl stop --now"),
        changes=True,
    ),
    Command(
        "why",
        VIEWER,
        "Show why workers died",
        (
            _WORKER,
            _EVERY,
            Field("limit", "int", "Most deaths to show, the latest first", 20, least=1, most=100),
            Field("since", "moment", "Only deaths since then: 14:00, 2026-11-30, or 1h ago", 0.0, most=1e11),
            Field("all", "flag", "Also show workers that left as ordered", False),
        ),
        help=(
            "Each death of a worker or zygote is recorded: how it ended, how long it had lived, the request it was in, "
            "the traceback and the last lines it wrote. The last 100 records of each pool are kept, over reloads and "
            "upgrades, and 100 more of workers that left as ordered. TARGET is a worker, a zygote (web@3) or a "
            "pool.\n\n"
            "Tracebacks, stacks and last lines are shown to operators only, since they may hold any data of the "
            "application. A viewer sees that there are some. Method and path of requests are shown to all roles."
        ),
        examples=("srvctl why", "srvctl why web --since 1h", 'srvctl why "web/3#17"'),
    ),
    Command(
        "dump",
        OPERATOR,
        "Show what every thread is doing, and the requests that are under way",
        (
            _WORKER._replace(help="One worker, as POOL/GENERATION#SERIAL, or a zygote, as POOL@GENERATION"),
            _EVERY,
            _OFFSET._replace(help="Skip this many processes"),
            Field("limit", "int", "Most processes to ask", 64, least=1, most=256),
            _TIMEOUT._replace(help="Wait at most this long for a process to answer; 0: 2 s", most=30.0),
        ),
        help=(
            "Shows the Python stacks of all threads, and those of all tasks of an ASGI worker: of one worker, of the "
            "workers of a pool, or of all workers, and of zygotes that load the application. Works for a worker that "
            "hangs in a loop, in a lock, in C code or while it boots, and does not stop the worker. If a process "
            "cannot answer, its entry says why.\n\n"
            "TARGET is a worker, a zygote (web@3) or a pool."
        ),
        examples=("srvctl dump", "srvctl dump web/3#17", "srvctl dump web@3"),
        takes_time=True,
    ),
    Command(
        "op.list",
        VIEWER,
        "List operations that are under way",
        help="Operations that have ended are in `srvctl history`.",
        examples=("srvctl op list",),
    ),
    Command("op.show", VIEWER, "Show one operation with its timeline", (_ID,), examples=("srvctl op show 17",)),
    Command(
        "op.wait",
        VIEWER,
        "Wait until an operation has ended",
        (_ID, _TIMEOUT._replace(help="Stop waiting after this time; the operation goes on; 0: no limit")),
        help="Ends like the command that began the operation: with its exit code and, if it failed, the reason.",
        examples=("srvctl op wait 17", "srvctl op wait 17 --timeout 30s"),
    ),
    Command(
        "op.cancel",
        OPERATOR,
        "Cancel an operation; the former state is restored",
        (_ID,),
        help="An operation cannot be cancelled once it has committed.",
        examples=("srvctl op cancel 17",),
        changes=True,
    ),
    Command(
        "history",
        VIEWER,
        "List operations that have ended, the latest first",
        (Field("limit", "int", "Most operations to list", 50, least=1, most=200), _OFFSET),
        examples=("srvctl history", "srvctl history --limit 5"),
    ),
    Command(
        "watch",
        VIEWER,
        "Show what happened, and follow what happens",
        (
            Field("topics", "topics", "Only these topics: " + ", ".join(TOPICS), ()),
            Field("since", "int", "Begin after this event; 0: all kept ones, -1: only new", 0, least=-1, most=2**53),
        ),
        help="The daemon keeps the last 1000 events. Without --follow, only those are shown.",
        examples=("srvctl events --since 1h", "srvctl events -f", "srvctl events -f --topic worker --json"),
        cli="events",
        streams=True,
    ),
    Command(
        "config",
        OPERATOR,
        "Show the settings in force and where each comes from",
        examples=("srvctl config", "srvctl config --json"),
    ),
)  # fmt: skip

_BY_NAME: dict[str, Command] = {entry.name: entry for entry in COMMANDS}


def command(method: str) -> Command:
    """Returns the declaration of a method. Raises `UnknownMethod`."""
    found = _BY_NAME.get(method)
    if found is None:
        raise UnknownMethod(
            f"call {method[:NAME_LIMIT]!r}: there is no such method",
            hint="the methods are: " + ", ".join(_BY_NAME),
        )
    return found


def may(role: str, entry: Command) -> bool:
    """Whether a peer with this role may call the command; "" and unknown roles may call none."""
    return role in ROLES and ROLES.index(role) >= ROLES.index(entry.role)
