"""The messages between daemon, zygote and worker: one msgpack map a datagram on a SOCK_SEQPACKET link.

Pure spelling: bytes to a known message or `BadFrame`; file descriptors travel beside the bytes and are named here
only in the docstrings. The worker's vocabulary is tiny on purpose: a worker that goes bad can say nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack

from srvd.errors import BadFrame
from srvd.record import Record

PROTOCOL = 3
"""Of these messages, and of the scoreboards. Workers outlive the daemon's program (an upgrade), so it changes when a
message changes, also by a field more; a program takes over only workers of its own number."""

ALONE = 69
"""The exit code of a worker that was told to leave with all others, and has lost its daemon since: its zygote need not
wait for another one."""

LIMIT = 1 << 17
"""The longest datagram, in bytes; a traceback is cut to TEXT_LIMIT characters before it is sent."""

Modules = list[str]
"""Names of modules, "shop.views": said by a worker, and imported by its zygote; no more than MODULES_LIMIT, and none
longer than NAME_LIMIT characters."""

MODULES_LIMIT = 2048
NAME_LIMIT = 200
NAMES_LIMIT = LIMIT - (1 << 14)
"""Bytes of all names together: there is room left for what stands between them."""

TEXT_LIMIT = 12_288
"""Characters of a reason or a traceback: two such texts of four bytes a character fit into one datagram."""


class Load(Record):
    """daemon → zygote, first message; fds: its generation's scoreboard, the file for its stacks, the bell, the lifeline
    of its workers, to be held, the listeners in the order of `listeners`; then, if there is a rendezvous, the family's
    lock and the end of its own stderr that is read; then, if any listener speaks TLS, a memfd with the map of their
    names to what `tls.material.pack` made.
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
    settings: dict[str, Any]  # the worker's own settings (timeouts, limits), made by config.packing.pack
    rendezvous: str = ""  # where orphans meet the next daemon; "": they need not wait for one
    uid: int = 0  # the daemon's, by which the next one is known
    settled: bool = False  # it has the pool's limits, and runs as its user
    environ: dict[str, Any] = {}  # noqa: RUF012 - variables to be set once it does
    protocol: int = PROTOCOL  # that the daemon speaks: what the zygote is has been read from disk just now


class Fork(Record):
    """daemon → zygote; fds: the worker's end of its link, the pipe that becomes its stderr, the file for its stacks,
    the other end of that pipe, the worker's end of the lifeline.
    """

    serial: int
    slot: int


class Leave(Record):
    """daemon → zygote: leave; the workers stay. A link that ends without it is a daemon that died."""


class Loaded(Record):
    """zygote → daemon: the application is loaded (or, not preloaded, will be in each worker)."""

    preloaded: bool
    notes: list[str]
    seconds: float
    folder: str  # the real path of where it was loaded


class LoadFailed(Record):
    """zygote → daemon; it exits right after."""

    reason: str  # one line
    hint: str
    traceback: str


class Forked(Record):
    """zygote → daemon: it has a child, which it does not reap before it has said so."""

    serial: int
    pid: int


class ForkFailed(Record):
    serial: int
    reason: str


class Reaped(Record):
    """zygote → daemon: a child ended; exactly one of the two is not None."""

    serial: int
    exit_code: int | None
    signal: int | None


class Stopped(Record):
    """zygote → daemon: a signal has stopped a child; a debugger's stops are not told."""

    serial: int


class Continued(Record):
    """zygote → daemon: a child that was stopped goes on."""

    serial: int


class Serve(Record):
    """daemon → worker: leave standby, accept; answered by `Serving`."""


class Drain(Record):
    """daemon → worker: stop accepting, finish, exit. `leaving`: empty the backlog first, idle clients get 1 s.

    `late`: requests that the application has given nothing for so many seconds are not waited for; 0.0: all are.

    `left_over` are the positions, in `Load.listeners`, of those whose backlog is for the next daemon.
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
    """daemon → zygote: import these before the next fork, as a worker did to answer; answered by `Learned`."""

    modules: Modules


class Learned(Record):
    """zygote → daemon: it has imported them; the notes say what is left to each worker, and why."""

    notes: list[str]


class Reopen(Record):
    """daemon → worker: open the access log anew; answered by `Reopened`."""


class Ping(Record):
    """daemon → worker: answer with `Pong`. Asked only when there is reason to doubt that it would."""


class Ready(Record):
    """worker → daemon: booted, in standby."""


class Serving(Record):
    """worker → daemon: accepting."""


class Failed(Record):
    """worker → daemon: could not boot; it exits right after."""

    reason: str
    traceback: str


class Probed(Record):
    healthy: bool
    text: str  # "GET /healthz: 200 OK", or what went wrong


class Warmed(Record):
    """worker → daemon: the paths were asked; the modules that it has imported from files since it was ready."""

    modules: Modules


class Mixed(Record):
    """worker or zygote → daemon: it has imported a file that is newer than its generation's load. Said once."""

    file: str


class Reopened(Record):
    """worker → daemon: the access log is open, or, with a problem, it is not, or still the former file. Answers
    `Reopen`; said unasked when lines begin to be lost, and when they are no longer.
    """

    problem: str


class Expired(Record):
    """worker → daemon: it has served long enough, and serves on until it is told to drain. Said once."""

    reason: str  # "served 1000 requests"


class Pong(Record):
    """worker → daemon: its loop turns."""


class WatchBell(Record):
    """worker → daemon: a request began while the scoreboard said that nobody watches."""


class Bye(Record):
    """worker → daemon: drained, about to exit."""


class Introduce(Record):
    """the next daemon → who calls at the rendezvous and runs as a user of the family: say who you are."""


class CallHome(Record):
    """orphan → the next daemon, its answer to `Introduce` on what becomes its link; fds: the end of its stderr that is
    read, the file for its stacks, the bell, its generation's scoreboard, of a zygote the lifeline of its workers, its
    listeners.

    Answered by `Adopted`, or by the order to leave.
    """

    pool: str
    generation: int
    serial: int  # 0: the zygote
    draining: bool
    children: list[list[int]]  # of a zygote: serial and pid of each
    ended: list[list[int]]  # and of those that ended unheard: serial, exit code and signal, -1 for the one it was not


class Adopted(Record):
    """daemon → orphan: it is one no more."""


Message = (
    Load | Fork | Learn | Leave | Loaded | LoadFailed | Learned | Forked | ForkFailed | Reaped | Stopped | Continued
    | Serve | Drain | Probe | Warm | Reopen | Ping
    | Ready | Serving | Failed | Probed | Warmed | Mixed | Reopened | Expired | Pong | WatchBell | Bye
    | Introduce | CallHome | Adopted
)  # fmt: skip

TO_ZYGOTE: tuple[type[Message], ...] = (Load, Fork, Learn, Leave, Introduce, Adopted)
FROM_ZYGOTE: tuple[type[Message], ...] = (
    Loaded, LoadFailed, Learned, Mixed, Forked, ForkFailed, Reaped, Stopped, Continued,
)  # fmt: skip
TO_WORKER: tuple[type[Message], ...] = (Serve, Drain, Probe, Warm, Reopen, Ping, Introduce, Adopted)
FROM_WORKER: tuple[type[Message], ...] = (
    Ready, Serving, Failed, Probed, Warmed, Mixed, Reopened, Expired, Pong, WatchBell, Bye,
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
    """The datagram of a message. A name of a file that is not UTF-8 stays the same name in what the daemon says; in
    what it is told, which only is shown, it gets backslashes.
    """
    plain = [type(message).__name__, *message]
    try:
        return bytes(msgpack.packb(plain))
    except UnicodeEncodeError:
        errors = "surrogateescape" if isinstance(message, Load) else "backslashreplace"
        return bytes(msgpack.packb(plain, unicode_errors=errors))


def decode(datagram: bytes, allowed: tuple[type[Message], ...]) -> Message:
    """The message of a datagram, if it is one that this side may say.

    Raises `BadFrame` for anything else: the link ends then, nothing more.
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
    if isinstance(value, bool) and kind != "bool":  # bool is an int to Python, not to us
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
    """Those of the names that a message may carry: what may follow `import`, and no more than there is room for."""
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
    """The text, cut in its middle to TEXT_LIMIT characters: a traceback's first and last lines tell most."""
    text = text.encode("utf-8", "backslashreplace").decode()  # here, because backslashes are longer
    if len(text) <= TEXT_LIMIT:
        return text
    half = TEXT_LIMIT // 2 - 20
    return f"{text[:half]}\n  … cut …\n{text[-half:]}"
