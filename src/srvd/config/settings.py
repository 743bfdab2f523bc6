"""Every setting, declared once: the TOML key, the flag, the SRVD_ variable, `srvd config` and the reference page
all come from these fields. Reading and checking them is `load.py`'s.

They are named tuples whose fields say what they are in `Annotated[type, Setting(…)]`. A dataclass would read the same,
but `dataclasses` imports `inspect`, and each zygote would wait ten milliseconds for it. The annotations are evaluated
here on purpose (no `from __future__ import annotations`): the loader and the reference page read them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

from srvd.tls.material import Material

__all__ = [
    "TABLES",
    "Config",
    "DaemonSettings",
    "ListenerSettings",
    "PoolSettings",
    "Setting",
    "declared",
]

_NO_TEXT: Final[Mapping[str, str]] = MappingProxyType({})
_NO_MATERIAL: Final[Mapping[str, Material]] = MappingProxyType({})
_NO_LIMITS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType({})
_NO_LISTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


class Setting(NamedTuple):
    """What is said about one setting: `help` is one sentence without a full stop.

    `kind` names a reader of `values.py` (`values.KINDS` has them all). `flag` names the flag of `srvd start` that sets
    it. `table` is the TOML table it stands in, where that is not told by its class. A `secret` is never shown.
    """

    help: str
    kind: str
    flag: str = ""
    table: str = ""
    secret: bool = False


class DaemonSettings(NamedTuple):
    """[daemon] and [control]: of the daemon itself."""

    name: Annotated[str, Setting("Name of this instance; it names the control socket", "name", "--name")] = "srvd"
    socket: Annotated[
        str,
        Setting(
            "Path of the control socket; empty: NAME.sock in /run/srvd (root's), $XDG_RUNTIME_DIR/srvd "
            'or /tmp/srvd-UID; "off": none, signals alone control the daemon',
            "path or off",
            "--socket",
            table="control",
        ),
    ] = ""
    pidfile: Annotated[str, Setting("Write the daemon's pid to this file", "path", "--pidfile")] = ""
    log_level: Annotated[
        str, Setting("Least level that is logged", "choice:debug|info|warning|error", "--log-level")
    ] = "info"
    log_format: Annotated[
        str, Setting("How log lines look; auto: text", "choice:auto|text|json", "--log-format")
    ] = "auto"  # fmt: skip
    log_file: Annotated[
        str, Setting("Write the log to this file; empty: standard error", "path", "--log-file")
    ] = ""  # fmt: skip
    max_workers: Annotated[
        int, Setting("Most workers of all pools together; the scoreboards have room for as many", "count:1..65536")
    ] = 1024
    roles: Annotated[
        Mapping[str, tuple[str, ...]],
        Setting(
            "Who may do what besides root and the daemon's own user, as in "
            '{operator = ["deploy"], viewer = ["%monitoring"]}; a % marks a group. A viewer may ask, '
            "but is not shown what applications wrote or held; an operator sees it, and may change what runs; an admin "
            "may stop and upgrade the daemon, too",
            "roles",
            table="control",
        ),
    ] = _NO_LISTS


class ListenerSettings(NamedTuple):
    """[listeners.NAME]: one or more addresses that pools accept on."""

    name: str
    bind: Annotated[
        tuple[str, ...],
        Setting(
            "Addresses to listen on: HOST:PORT, [V6]:PORT, :PORT, unix:PATH, fd:N. [::]:PORT serves IPv4 clients, too, "
            "unless the same port is bound for IPv4 as well",
            "addresses",
            "--bind",
        ),
    ] = ("127.0.0.1:8000",)
    backlog: Annotated[int, Setting("Connections that may wait to be accepted", "count:1..65535")] = 2048
    mode: Annotated[str, Setting("Mode of Unix sockets", "mode")] = "0666"
    owner: Annotated[
        str, Setting("User whose the Unix sockets are, a name or a number; empty: the daemon's own", "user")
    ] = ""
    group: Annotated[
        str,
        Setting(
            "Group whose the Unix sockets are, such as the proxy's; empty: the daemon's own, or the folder's", "group"
        ),
    ] = ""
    reuse_port: Annotated[
        bool,
        Setting(
            "Other processes of this user may listen on the same TCP ports at the same time, and the kernel gives each "
            "connection to one of them (SO_REUSEPORT); holds for addresses that are opened from now on",
            "yes or no",
        ),
    ] = False
    certificate: Annotated[
        tuple[str, ...],
        Setting(
            "Speak TLS with this certificate (PEM, its chain behind it); several: one is chosen by the name that the "
            "client asks for, else the first",
            "files",
            "--certificate",
        ),
    ] = ()
    key: Annotated[
        tuple[str, ...],
        Setting("The certificates' keys, in the same order; empty: each in its certificate's file", "files", "--key"),
    ] = ()
    client_certificates: Annotated[
        str, Setting("Whether clients have to show a certificate", "choice:none|optional|required")
    ] = "none"
    client_ca: Annotated[str, Setting("Certificates that may sign those of clients (PEM)", "path")] = ""
    minimum_tls: Annotated[str, Setting("Oldest version of TLS that is spoken", "choice:1.2|1.3")] = "1.2"
    ciphers: Annotated[
        str,
        Setting("Ciphers of TLS 1.2, as OpenSSL spells them; empty: ECDHE with AES-GCM or ChaCha20", "words"),
    ] = ""  # fmt: skip
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting(
            "Networks whose forwarding headers are believed; the word unix stands for peers on Unix sockets. Empty: no "
            "peer's are, and they reach the application as they came",
            "networks",
        ),
    ] = ()
    forwarded: Annotated[
        str,
        Setting(
            "Which headers trusted proxies write: X-Forwarded-For, -Proto, -Host and -Prefix, or Forwarded (RFC 7239). "
            "Where trusted_proxies names networks, all others are taken out, and from any other peer all of them",
            "choice:x-forwarded|forwarded",
        ),
    ] = "x-forwarded"
    proxy_protocol: Annotated[
        bool, Setting("Connections begin with a header of the PROXY protocol, version 1 or 2", "yes or no")
    ] = False
    proxy_from: Annotated[
        tuple[str, ...],
        Setting(
            "Networks that may write it, or the word unix; connections of all others are closed at once", "networks"
        ),
    ] = ()


class PoolSettings(NamedTuple):
    """[pools.NAME]: an application and its workers."""

    name: str
    app: Annotated[str, Setting("The application, MODULE:ATTRIBUTE or MODULE:FACTORY()", "app", "APP")] = (
        "srvd.demo:app"
    )
    listeners: Annotated[
        tuple[str, ...], Setting("Names of the listeners it accepts on; empty: all of them", "names")
    ] = ()
    workers: Annotated[int, Setting("Number of workers (max_workers limits all)", "count:0..65536", "--workers")] = 2
    threads: Annotated[
        int,
        Setting(
            "Calls of the application that one worker runs at a time, each in a thread", "count:1..64", "--threads"
        ),
    ] = 1
    python: Annotated[
        str,
        Setting("Interpreter that runs the application, a path or a name on PATH; empty: the daemon's", "program"),
    ] = ""
    preload: Annotated[
        str,
        Setting(
            "Load the application once, in the zygote; auto: unless it starts threads or connects sockets",
            "choice:auto|on|off",
        ),
    ] = "auto"
    chdir: Annotated[str, Setting("Working directory; empty: the daemon's", "folder")] = ""
    pythonpath: Annotated[tuple[str, ...], Setting("Folders put before sys.path", "folders")] = ()
    env: Annotated[
        Mapping[str, str], Setting("Environment variables added for the application", "variables", secret=True)
    ] = _NO_TEXT
    user: Annotated[
        str, Setting("User the application runs as, a name or a number (needs root); HOME and USER follow it", "user")
    ] = ""
    group: Annotated[str, Setting("Group the application runs as; empty: the user's", "group")] = ""
    umask: Annotated[str, Setting("File mode creation mask; empty: the daemon's", "mask")] = ""
    health: Annotated[
        str,
        Setting(
            "Path that a new generation must answer with 2xx before it serves; empty: booting is enough", "url path"
        ),
    ] = ""
    health_host: Annotated[
        str,
        Setting("Host the health probe asks for; empty: a name in its listeners' addresses, else localhost", "words"),
    ] = ""
    health_status: Annotated[
        tuple[str, ...], Setting("Statuses that the health probe takes for healthy, codes and ranges", "statuses")
    ] = ("200-299",)
    warm: Annotated[
        tuple[str, ...],
        Setting(
            "Paths that the first worker of a generation is asked besides, to import what they need before the others "
            "are forked; their answers are not judged",
            "url paths",
        ),
    ] = ()
    strategy: Annotated[
        str,
        Setting(
            "How a reload changes over; auto: blue-green while the memory for both generations is there, else rolling",
            "choice:auto|blue-green|rolling",
        ),
    ] = "auto"
    boot_timeout: Annotated[float, Setting("To load the application, and for a worker to be ready", "duration")] = 60.0
    drain_timeout: Annotated[float, Setting("For a leaving worker to finish its requests", "duration")] = 30.0
    request_timeout: Annotated[
        float,
        Setting(
            "For the application to give something: the first block of a response, or the next one; then its worker is "
            "replaced, and has drain_timeout to finish its other requests; 0: no limit",
            "duration or 0",
        ),
    ] = 60.0  # fmt: skip
    health_timeout: Annotated[
        float, Setting("For the health probe to be answered well; until then it is repeated", "duration")
    ] = 5.0
    bake: Annotated[
        float, Setting("How long crash loops and worse answers after a reload switch back; 0: never", "duration or 0")
    ] = 10.0
    bake_errors: Annotated[
        int, Setting("Percentage points of 5xx more than before that switch back in that time; 0: any", "count:0..100")
    ] = 5
    rollback_window: Annotated[
        float,
        Setting("How long the former generation stays loaded for a rollback; 0: not at all", "duration or 0"),
    ] = 600.0
    orphan_timeout: Annotated[
        float,
        Setting(
            "How long workers serve on when the daemon has died, for a new start to adopt them; 0: they leave at once",
            "duration or 0",
        ),
    ] = 60.0
    keepalive_timeout: Annotated[float, Setting("For the next request on an idle connection", "duration")] = 15.0
    header_timeout: Annotated[float, Setting("For a request's head, from its first byte", "duration")] = 15.0
    body_timeout: Annotated[float, Setting("For more of a request's body to arrive", "duration")] = 60.0
    send_timeout: Annotated[float, Setting("For a client to take more of a response", "duration")] = 60.0
    max_body: Annotated[int, Setting("Longest request body; 0: no limit", "size or 0")] = 1 << 30
    body_memory: Annotated[
        int,
        Setting(
            "Memory of a worker for all bodies that wait: of requests until they are whole, of responses until they "
            "are read. Of each, at most 1 MiB; the rest is in unnamed files in $TMPDIR, else in /var/tmp; 0: all of it",
            "size or 0",
        ),
    ] = 64 << 20
    max_buffered_response: Annotated[
        int,
        Setting(
            "How much of one response is kept for a client that reads more slowly than the application gives; beyond "
            "it, or when the disk is full, the application waits for the client; 0: it always does",
            "size or 0",
        ),
    ] = 1 << 30
    stream_bodies: Annotated[
        bool,
        Setting(
            "Call the application when a request's head is here, and read the body when the application does; a slow "
            "upload then occupies a thread, which it does not otherwise, and counts towards request_timeout. "
            "A chunked body has no length then, and Django, for one, takes it for empty",
            "yes or no",
        ),
    ] = False
    max_head: Annotated[int, Setting("Longest request line and headers together (431)", "size")] = 65_536
    max_target: Annotated[int, Setting("Longest request target, path and query (414)", "size")] = 16_384
    max_field: Annotated[int, Setting("Longest header line of a request (431)", "size")] = 16_384
    max_fields: Annotated[int, Setting("Most header lines of a request (431)", "count:1..10000")] = 100
    underscore_headers: Annotated[
        str,
        Setting(
            "What is done with a request's headers whose names have an underscore, which applications cannot tell from "
            "those with a hyphen; refuse: the request is answered with 400",
            "choice:drop|refuse",
        ),
    ] = "drop"
    max_connections: Annotated[
        int,
        Setting(
            "Connections one worker holds at a time. While clients wait for room, those that have been silent for "
            "longest are closed",
            "count:1..65535",
        ),
    ] = 1000
    access_log: Annotated[
        str,
        Setting(
            "Write a line for each request to this file, as the pool's user; -: to srvd's standard output; empty: none",
            "path or -",
            "--access-log",
        ),
    ] = ""
    access_log_format: Annotated[
        str,
        Setting("How its lines look: common, combined, json, or a text with atoms such as %(h)s", "log format"),
    ] = "combined"
    hooks: Annotated[
        str,
        Setting(
            "Module with functions that are called when something happens: on_fork, on_worker_start, on_worker_stop, "
            "before_request, after_request",
            "module",
        ),
    ] = ""
    max_requests: Annotated[
        int, Setting("Replace a worker after so many requests; 0: never", "count:0..1000000000")
    ] = 0  # fmt: skip
    max_requests_jitter: Annotated[
        int,
        Setting("Up to so many requests more, by chance, so that workers do not leave together", "count:0..1000000000"),
    ] = 0
    max_age: Annotated[
        float, Setting("Replace a worker that has served for this time; 0: never", "duration or 0")
    ] = 0.0  # fmt: skip
    max_rss: Annotated[
        int,
        Setting(
            "Replace a worker with more resident memory, shared pages included; looked at every 5 s; 0: never",
            "size or 0",
        ),
    ] = 0
    rlimits: Annotated[
        Mapping[str, tuple[int, int]],
        Setting(
            "Limits of each process, as of getrlimit(2), set before the user is changed: one value, or [soft, hard]",
            "limits",
        ),
    ] = _NO_LIMITS
    nice: Annotated[
        int,
        Setting("Added to the daemon's niceness: above 0 others go first, below 0 takes root", "count:-20..19"),
    ] = 0
    oom_score_adj: Annotated[
        int,
        Setting(
            "OOM score adjustment of workers: the kernel ends higher ones earlier; that of the zygote is at most 100",
            "count:-1000..1000",
        ),
    ] = 500


class Config(NamedTuple):
    """What is in force, and where each value came from.

    `origins` maps "pools.web.workers" to "default", "/etc/x.toml:12", "environment SRVD_WORKERS" or "flag --workers".
    `tls` has what was read of the files that listeners name, by listener. `path` is "" without a file. `warnings` are
    sentences for the log: nothing in them keeps the daemon from starting. `folder` is the one that srvd was started
    in, by its name then; "": not known.
    """

    daemon: DaemonSettings
    listeners: dict[str, ListenerSettings]
    pools: dict[str, PoolSettings]
    origins: dict[str, str]
    path: str
    warnings: tuple[str, ...] = ()
    tls: Mapping[str, Material] = _NO_MATERIAL
    folder: str = ""


TABLES: Final = (DaemonSettings, ListenerSettings, PoolSettings)


def declared(table: type[NamedTuple]) -> dict[str, Setting]:
    """The settings of one of `TABLES` by name, in order of declaration; the name of a pool or listener is none."""
    return {
        name: extra
        for name, annotation in table.__annotations__.items()
        for extra in getattr(annotation, "__metadata__", ())
        if isinstance(extra, Setting)
    }
