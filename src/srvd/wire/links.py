"""The messages between daemon, zygote and worker: one msgpack list in each datagram of a SOCK_SEQPACKET link.

Encodes and reads only: bytes become a known message, or `BadFrame`. File descriptors travel beside the bytes, and are
named only in the docstrings here. A worker has few messages on purpose: one that is compromised can send no others.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from srvd.errors import BadFrame
from srvd.record import Record

PROTOCOL = 3
"""Version of these messages and of the scoreboards. Raised when a message changes, also by a new field: workers outlive
the daemon's program in an upgrade, and a program takes over only workers of its own version."""

ALONE = 69
"""Exit code of a worker that was told to leave in a stop, and whose daemon has died since: its zygote does not wait for
another daemon then."""

LIMIT = 1 << 17
"""The longest datagram, in bytes. Tracebacks are cut to TEXT_LIMIT characters before they are sent."""

Modules = list[str]
"""Names of modules, "shop.views", which a worker has imported and its zygote imports, too: at most MODULES_LIMIT, each
of at most NAME_LIMIT characters."""

MODULES_LIMIT = 2048
NAME_LIMIT = 200
NAMES_LIMIT = LIMIT - (1 << 14)
"""Most bytes of all names together, less than LIMIT to leave room for msgpack's own."""

TEXT_LIMIT = 12_288
"""Most characters of a reason or a traceback: two such texts of four bytes a character fit into one datagram."""


class Load(Record):
    """daemon → zygote, the first message.

    fds: the generation's scoreboard, the file for the zygote's stacks, the bell, the write end of its workers' deadman
    pipe, the listeners in the order of `listeners`; then, if there is a rendezvous, the family's lock and the read end
    of the zygote's stderr; then, if any listener speaks TLS, a memfd with a map of their names to what
    `tls.material.pack` returned.
    """

    pool: str
    generation: int
    app: str  # "module:attribute" or "module:factory()"
    preload: str  # "auto", "on", "off"
    chdir: str
    pythonpath: list[str]
    umask: int  # -1: leave
    user: str  # "" : leave
    group: str
    listeners: list[dict[str, Any]]  # {"name", "address", "family": "inet"|"inet6"|"unix", "front": {…}}
    settings: dict[str, Any]  # the pool's settings, made by config.packing.pack
    rendezvous: str = ""  # the address at which zygotes and workers of a dead daemon meet the next one; "": none
    uid: int = 0  # the daemon's, which the next daemon must have, too
    settled: bool = False  # the zygote already has the pool's limits and runs as the pool's user
    environ: dict[str, Any] = {}  # noqa: RUF012 - variables to set when the zygote runs as the pool's user
    protocol: int = PROTOCOL  # that the daemon speaks; the zygote's program may be newer, on disk


class Fork(Record):
    """daemon → zygote: fork a worker; answered by `Forked` or `ForkFailed`.

    fds: the worker's end of its link, the write end of its stderr, the file for its stacks, the read end of its
    stderr, the read end of the deadman pipe.
    """

    serial: int
    slot: int


class Leave(Record):
    """daemon → zygote: exit; the workers stay. A link that ends without this message means that the daemon died."""


class Loaded(Record):
    """zygote → daemon: the application is loaded; if not preloaded: each worker will load it."""

    preloaded: bool
    notes: list[str]
    seconds: float
    folder: str  # the real path of its working directory at the load


class LoadFailed(Record):
    """zygote → daemon: the application cannot be loaded. The zygote exits right after."""

    reason: str  # one line
    hint: str
    traceback: str


class Forked(Record):
    """zygote → daemon: a worker was forked. The zygote does not reap it before it has sent this."""

    serial: int
    pid: int


class ForkFailed(Record):
    serial: int
    reason: str


class Reaped(Record):
    """zygote → daemon: a worker ended; exactly one of `exit_code` and `signal` is not None."""

    serial: int
    exit_code: int | None
    signal: int | None


class Stopped(Record):
    """zygote → daemon: a signal has stopped a worker. Stops by a debugger are not reported."""

    serial: int


class Continued(Record):
    """zygote → daemon: a worker that was stopped runs again."""

    serial: int


class Serve(Record):
    """daemon → worker: leave standby and accept; answered by `Serving`."""


class Drain(Record):
    """daemon → worker: stop accepting, finish the requests, exit.

    seconds: time to finish.
    leaving: all of the server stops: answer the backlog first, and close idle connections after 1 s.
    left_over: positions in `Load.listeners` of listeners whose backlog is left to the next daemon.
    late: do not wait for a request for which the application has produced nothing for so many seconds; 0.0: wait.
    """

    seconds: float
    leaving: bool
    left_over: list[int]
    late: float = 0.0


class Probe(Record):
    """daemon → worker: call the application with GET `path`; answered by `Probed`."""

    path: str
    seconds: float


class Warm(Record):
    """daemon → worker: call the application with GET on each path; answered by `Warmed`."""

    paths: list[str]


class Learn(Record):
    """daemon → zygote: import these modules before the next fork; answered by `Learned`."""

    modules: Modules


class Learned(Record):
    """zygote → daemon: the modules are imported; `notes` say which are left to each worker, and why."""

    notes: list[str]


class Reopen(Record):
    """daemon → worker: open the access log anew; answered by `Reopened`."""


class Ping(Record):
    """daemon → worker: answer with `Pong`. Sent only to a worker that seems to be stuck."""


class Ready(Record):
    """worker → daemon: booted, in standby."""


class Serving(Record):
    """worker → daemon: accepting."""


class Closed(Record):
    """worker → daemon: it has obeyed `Drain`, and accepts no client any more."""


class Failed(Record):
    """worker → daemon: the worker cannot boot. It exits right after."""

    reason: str
    traceback: str


class Probed(Record):
    """worker → daemon: the application has answered the probe."""

    healthy: bool
    text: str  # "GET /healthz: 200 OK", or what went wrong


class Warmed(Record):
    """worker → daemon: the paths were called; `modules` were imported from files since the worker was ready."""

    modules: Modules


class Mixed(Record):
    """worker or zygote → daemon: it has imported a file that is newer than its generation's load. Sent once."""

    file: str


class Reopened(Record):
    """worker → daemon: the access log is open; with a problem: it is not, or is still the former file.

    Answers `Reopen`; also sent when lines begin to be lost, and when they are written again.
    """

    problem: str


class Expired(Record):
    """worker → daemon: it has reached max_requests or max_age, and serves until it is told to drain. Sent once."""

    reason: str  # "served 1000 requests"


class Pong(Record):
    """worker → daemon: its loop turns."""


class WatchBell(Record):
    """worker → daemon: a request began while the bell said that the daemon does not watch the scoreboards."""


class Bye(Record):
    """worker → daemon: the worker has drained, and is about to exit."""


class Introduce(Record):
    """the next daemon → a process that calls at the rendezvous and runs as a user of the pools: introduce yourself."""


class CallHome(Record):
    """zygote or worker of a dead daemon → the next daemon: answers `Introduce`. The connection becomes its link.

    fds: the read end of its stderr, the file for its stacks, the bell, its generation's scoreboard, of a zygote the
    write end of its workers' deadman pipe, its listeners. Answered by `Adopted`, or by the order to leave.
    """

    pool: str
    generation: int
    serial: int  # 0: the zygote
    draining: bool
    children: list[list[int]]  # of a zygote: serial and pid of each worker
    ended: list[list[int]]  # of its workers that ended meanwhile: serial, exit code, signal; -1 for the one it was not


class Adopted(Record):
    """the next daemon → a process that called: it is adopted."""


Message = (
    Load | Fork | Learn | Leave | Loaded | LoadFailed | Learned | Forked | ForkFailed | Reaped | Stopped | Continued
    | Serve | Drain | Probe | Warm | Reopen | Ping
    | Ready | Serving | Closed | Failed | Probed | Warmed | Mixed | Reopened | Expired | Pong | WatchBell | Bye
    | Introduce | CallHome | Adopted
)  # fmt: skip

TO_ZYGOTE: tuple[type[Message], ...] = (Load, Fork, Learn, Leave, Introduce, Adopted)
FROM_ZYGOTE: tuple[type[Message], ...] = (
    Loaded, LoadFailed, Learned, Mixed, Forked, ForkFailed, Reaped, Stopped, Continued,
)  # fmt: skip
TO_WORKER: tuple[type[Message], ...] = (Serve, Drain, Probe, Warm, Reopen, Ping, Introduce, Adopted)
FROM_WORKER: tuple[type[Message], ...] = (
    Ready, Serving, Closed, Failed, Probed, Warmed, Mixed, Reopened, Expired, Pong, WatchBell, Bye,
)  # fmt: skip
FROM_ORPHAN: tuple[type[Message], ...] = (CallHome,)

_CHECKS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "int | None": (int, type(None)),
    "list[str]": (list,),
    "Modules": (list,),
    "list[int]": (list,),
    "list[dict[str, Any]]": (list,),
    "list[list[int]]": (list,),
    "dict[str, Any]": (dict,),
}
_BY_NAME: dict[str, type[Message]] = {
    cls.__name__: cls for cls in (*TO_ZYGOTE, *FROM_ZYGOTE, *TO_WORKER, *FROM_WORKER, *FROM_ORPHAN)
}


def encode(message: Message) -> bytes:
    """Returns the datagram of a message.

    Text that is not UTF-8, such as a file's name, stays the same in `Load`. In messages to the daemon, which are only
    shown, it is written with backslashes.
    """
    plain = [type(message).__name__, *message]
    try:
        return bytes(msgpack.packb(plain))
    except UnicodeEncodeError:
        errors = "surrogateescape" if isinstance(message, Load) else "backslashreplace"
        return bytes(msgpack.packb(plain, unicode_errors=errors))


def decode(datagram: bytes, allowed: tuple[type[Message], ...]) -> Message:
    """Reads the message in a datagram, one of the classes that are `allowed`.

    Raises `BadFrame` for anything else; the caller closes the link then.
    """
    try:
        errors = "surrogateescape" if allowed == (Load,) else "strict"
        name, *values = msgpack.unpackb(datagram, raw=False, strict_map_key=True, max_ext_len=0, unicode_errors=errors)
        cls = _BY_NAME[name]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as exc:
        raise BadFrame(f"read a message of the family: {exc!r}; the link is closed") from exc
    kinds = list(cls.__annotations__.values())  # strings, as they are written above
    fits = cls in allowed and len(values) == len(kinds)
    if not fits or not all(_fits(value, kind) for value, kind in zip(values, kinds, strict=True)):
        raise BadFrame(
            f"read a message of the family: {name} with {len(values)} fields does not fit; the link is closed"
        )
    return cls(*values)


def _fits(value: object, kind: str) -> bool:
    if isinstance(value, bool) and kind != "bool":  # Python takes a bool for an int
        return False
    if kind == "Modules" and isinstance(value, list):
        return fitting_modules(value) == value
    if kind == "list[str]" and isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    if kind == "list[int]" and isinstance(value, list):
        return all(type(item) is int for item in value)
    if kind == "list[list[int]]" and isinstance(value, list):
        return all(isinstance(row, list) and all(type(item) is int for item in row) for row in value)
    return isinstance(value, _CHECKS[kind])


def fitting_modules(names: Iterable[Any]) -> Modules:
    """Returns the names that a message may carry: those that may follow `import`, as many as there is room for."""
    fitting: Modules = []
    room = NAMES_LIMIT
    for name in names:
        if isinstance(name, str) and len(name) <= NAME_LIMIT and all(map(str.isidentifier, name.split("."))):
            room -= len(name.encode())
            if room < 0 or len(fitting) == MODULES_LIMIT:
                break
            fitting.append(name)
    return fitting


def clip(text: str) -> str:
    """Cuts the middle of a text, to TEXT_LIMIT characters: a traceback's first and last lines tell most."""
    text = text.encode("utf-8", "backslashreplace").decode()  # here, because backslashes are longer
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2 - 20
    return f"{text[:half]}\n  … cut …\n{text[-half:]}"
