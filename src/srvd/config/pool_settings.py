"""The settings of a pool, declared in the way of `settings.py`, which has those of the daemon and of listeners.

Reads and checks nothing: `load.py` does. The annotations are evaluated on purpose, as there.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, NamedTuple

from srvd.config.declaration import Setting

__all__ = ["PoolSettings"]

_NO_TEXT: Final[Mapping[str, str]] = MappingProxyType({})
_NO_LIMITS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType({})


class PoolSettings(NamedTuple):
    """[pools.NAME]: an application and its workers."""

    name: str
    app: Annotated[
        str,
        Setting(
            "The application, MODULE:ATTRIBUTE or MODULE:FACTORY(), which may have plain values as arguments; of a "
            "MODULE alone, its application or app",
            "app",
            "APP",
        ),
    ] = "srvd.demo:app"
    interface: Annotated[
        str,
        Setting("How the application is called; auto: ASGI if its call is async, else WSGI", "choice:auto|wsgi|asgi"),
    ] = "auto"
    lifespan: Annotated[
        str,
        Setting(
            "Whether an ASGI application is told of the start and the end of its worker; auto: if it listens; on: it "
            "has to",
            "choice:auto|on|off",
        ),
    ] = "auto"
    root_path: Annotated[
        str,
        Setting(
            "Where a proxy has mounted an ASGI application, such as /shop; `path` in its scope begins with it. What a "
            "trusted proxy says in X-Forwarded-Prefix is put behind it",
            "words",
        ),
    ] = ""
    cancel_on_disconnect: Annotated[
        bool,
        Setting("Cancel the task of an ASGI request 3 s after its client has left without the response", "yes or no"),
    ] = False
    max_in_flight: Annotated[
        int,
        Setting(
            "Requests, event streams and WebSockets that an ASGI worker has under way at a time; further ones are "
            "answered with 503 and Retry-After; 0: no limit",
            "count:0..65536",
        ),
    ] = 0
    websocket_origins: Annotated[
        tuple[str, ...],
        Setting(
            'Origins whose pages may open a WebSocket, such as ["https://shop.example"]; others are answered with 403, '
            "clients that name none are served; empty: all",
            "names",
        ),
    ] = ()
    websocket_max_message: Annotated[
        int, Setting("Longest message of a WebSocket, after it was inflated (close code 1009)", "size")
    ] = 16 << 20
    websocket_ping: Annotated[
        float, Setting("Time without a word of the client after which a WebSocket is pinged; 0: never", "duration or 0")
    ] = 20.0
    websocket_ping_timeout: Annotated[
        float, Setting("Time for the client to answer a ping; then the WebSocket is cut", "duration")
    ] = 20.0
    websocket_deflate: Annotated[
        bool, Setting("Compress messages of WebSockets whose clients offer it (permessage-deflate)", "yes or no")
    ] = True
    listeners: Annotated[
        tuple[str, ...], Setting("Names of the listeners that the pool accepts on; empty: all of them", "names")
    ] = ()
    workers: Annotated[
        int,
        Setting(
            "Number of workers; max_workers limits all pools together. A formula has cpus, the processors that "
            "affinity and the control group grant, numbers, + - * / //, min, max and int; auto is 2 * cpus + 1",
            "formula:0..65536",
            "--workers",
        ),
    ] = 2
    threads: Annotated[
        int,
        Setting(
            "Calls of the application that one worker runs at a time, each in a thread; a formula, as for workers",
            "formula:1..512",
            "--threads",
        ),
    ] = 1
    engine: Annotated[
        str,
        Setting(
            "What runs the calls of a WSGI application: threads, or greenlets of gevent (srvd[gevent]), which patches "
            "the process before the application is loaded",
            "choice:threads|gevent",
        ),
    ] = "threads"
    greenlets: Annotated[
        int,
        Setting('Calls of the application that one worker runs at a time with engine = "gevent"', "count:1..65536"),
    ] = 1000
    python: Annotated[
        str,
        Setting("Interpreter that runs the application, a path or a name on PATH; empty: the daemon's", "program"),
    ] = ""
    wrap: Annotated[
        tuple[str, ...],
        Setting(
            "Program in front of the interpreter, and its arguments; it has to execute what is named after them, as "
            "programs do that instrument an application",
            "command",
        ),
    ] = ()
    preload: Annotated[
        str,
        Setting(
            "Load the application once, in the zygote, and fork workers from it; auto: unless loading starts threads "
            "or connects sockets",
            "choice:auto|on|off",
        ),
    ] = "auto"
    chdir: Annotated[str, Setting("Working directory; empty: the daemon's", "folder", "--chdir")] = ""
    pythonpath: Annotated[tuple[str, ...], Setting("Folders put before sys.path", "folders", "--pythonpath")] = ()
    env: Annotated[
        Mapping[str, str], Setting("Environment variables added for the application", "variables", secret=True)
    ] = _NO_TEXT
    env_file: Annotated[
        str,
        Setting(
            "File with more variables for the application, a line NAME=VALUE each, which the daemon reads at each "
            "reload; `env` wins",
            "path",
        ),
    ] = ""
    user: Annotated[
        str,
        Setting(
            "User that the application runs as, a name or a number (needs root); sets HOME and USER, too",
            "user",
            "--user",
        ),
    ] = ""
    group: Annotated[str, Setting("Group the application runs as; empty: the user's", "group", "--group")] = ""
    umask: Annotated[str, Setting("File mode creation mask; empty: the daemon's", "mask")] = ""
    health: Annotated[
        str,
        Setting(
            "Path that a new generation must answer with 2xx before it serves; empty: booting is enough", "url path"
        ),
    ] = ""
    health_host: Annotated[
        str,
        Setting(
            "Host header of the health probe; empty: a host name in the listeners' addresses, else localhost", "words"
        ),
    ] = ""
    health_status: Annotated[
        tuple[str, ...], Setting("Statuses with which a health probe succeeds, codes and ranges", "statuses")
    ] = ("200-299",)
    warm: Annotated[
        tuple[str, ...],
        Setting(
            "Paths that the first worker of a new generation is asked for, so that what they import is loaded before "
            "the other workers are forked; the answers do not matter",
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
    boot_timeout: Annotated[
        float, Setting("Time to load the application, and time for each worker to become ready", "duration")
    ] = 60.0
    drain_timeout: Annotated[
        float,
        Setting(
            "Time for a worker that leaves to finish its requests; then it is killed", "duration", "--drain-timeout"
        ),
    ] = 30.0
    request_timeout: Annotated[
        float,
        Setting(
            "Time for the application to produce the first block of a response, and each further one. A worker that is "
            "late is replaced, and has drain_timeout to finish its other requests; with ASGI, that request alone ends, "
            "and event streams and WebSockets may be silent; 0: no limit",
            "duration or 0", "--request-timeout",
        ),
    ] = 60.0  # fmt: skip
    health_timeout: Annotated[
        float, Setting("Time for the health probe to succeed; until then it is repeated", "duration")
    ] = 5.0
    bake: Annotated[
        float,
        Setting(
            "Time after a reload in which a crash loop, or more errors than before, brings the former generation back "
            "by itself; 0: never",
            "duration or 0",
        ),
    ] = 10.0
    bake_errors: Annotated[
        int,
        Setting(
            "Percentage points of 5xx answers above the former share that bring the former generation back during the "
            "bake; 0: any increase",
            "count:0..100",
        ),
    ] = 5
    rollback_window: Annotated[
        float,
        Setting("How long the former generation stays loaded for a rollback; 0: not at all", "duration or 0"),
    ] = 600.0
    orphan_timeout: Annotated[
        float,
        Setting(
            "How long workers go on serving after the daemon has died, so that the next start can adopt them; 0: they "
            "leave at once",
            "duration or 0",
        ),
    ] = 60.0
    keepalive_timeout: Annotated[
        float, Setting("Time for the next request on an idle connection", "duration", "--keepalive-timeout")
    ] = 15.0
    header_timeout: Annotated[float, Setting("Time for a request's head, from its first byte", "duration")] = 15.0
    body_timeout: Annotated[float, Setting("Time for more of a request's body to arrive", "duration")] = 60.0
    send_timeout: Annotated[float, Setting("Time for a client to read more of a response", "duration")] = 60.0
    max_body: Annotated[int, Setting("Longest request body; 0: no limit", "size or 0")] = 1 << 30
    body_memory: Annotated[
        int,
        Setting(
            "Memory of a worker for all bodies it buffers: requests until they are complete, responses until the "
            "client has read them. A body takes at most 1 MiB, that of a request more while all bodies take no more "
            "than a quarter; the rest is in unnamed files in $TMPDIR, else in /var/tmp; 0: all of it is in files",
            "size or 0",
        ),
    ] = 64 << 20
    max_buffered_response: Annotated[
        int,
        Setting(
            "How much of one response is buffered for a client that reads more slowly than the application writes. "
            "Beyond that, or when the disk is full, the application waits for the client; 0: it always waits",
            "size or 0",
        ),
    ] = 1 << 30
    stream_bodies: Annotated[
        bool,
        Setting(
            "Call the application as soon as a request's head has arrived, and read the body when the application "
            "does. A slow upload then occupies a thread, which it does not otherwise, and counts towards "
            "request_timeout; a chunked body has no length, and Django, for one, takes it for empty",
            "yes or no",
        ),
    ] = False
    max_head: Annotated[int, Setting("Longest request line and headers together (431)", "size")] = 65_536
    max_target: Annotated[int, Setting("Longest request target, path and query (414); 0: max_head", "size or 0")] = (
        16_384
    )
    max_field: Annotated[int, Setting("Longest header line of a request (431); 0: max_head", "size or 0")] = 16_384
    max_fields: Annotated[int, Setting("Most header lines of a request (431)", "count:1..10000")] = 100
    underscore_headers: Annotated[
        str,
        Setting(
            "What happens to request headers with an underscore in their names, which applications cannot tell from "
            "those with a hyphen; drop: they are removed, refuse: the request is answered with 400",
            "choice:drop|refuse",
        ),
    ] = "drop"
    max_connections: Annotated[
        int,
        Setting(
            "Most connections of one worker at a time. When more clients wait, the connections that have been silent "
            "for longest are closed",
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
    access_log_mode: Annotated[
        str, Setting("Mode of a new file for the access log, less the umask; one that exists keeps its own", "mode")
    ] = "0640"
    access_log_format: Annotated[
        str,
        Setting("Format of the access log: common, combined, json, or a text with atoms such as %(h)s", "log format"),
    ] = "combined"
    access_log_skip: Annotated[
        tuple[str, ...],
        Setting(
            "Requests without a line in the access log: rules of a path, in which * stands for anything, a status "
            "(2xx) and a method, at most one of each; all that a rule has must fit",
            "rules",
        ),
    ] = ()
    hooks: Annotated[
        str,
        Setting(
            "Module with functions that are called when something happens: on_fork, on_worker_start, on_worker_stop, "
            "on_worker_gone, before_request, after_request",
            "module",
        ),
    ] = ""
    hooks_first: Annotated[
        bool,
        Setting(
            "Load the module of hooks before the application, for what has to be there when that is loaded", "yes or no"
        ),
    ] = False
    reload: Annotated[
        str,
        Setting(
            "For development: load the application anew when one of its files changes. on: requests wait for the new "
            "code, and code that does not load is answered with its traceback; safe: the last code that has loaded "
            "serves on",
            "switch:off|on|safe",
            "--reload",
        ),
    ] = "off"
    reload_extra: Annotated[
        tuple[str, ...],
        Setting(
            "With reload, what is watched besides the modules that are loaded: files, folders with all that is in "
            "them, and patterns such as templates/*.html",
            "files",
            "--reload-extra",
        ),
    ] = ()
    max_requests: Annotated[
        int, Setting("Replace a worker after so many requests; 0: never", "count:0..1000000000", "--max-requests")
    ] = 0  # fmt: skip
    max_requests_jitter: Annotated[
        int,
        Setting(
            "Add a random number up to this to max_requests, so that workers are not replaced all at once",
            "count:0..1000000000",
            "--max-requests-jitter",
        ),
    ] = 0
    max_age: Annotated[
        float, Setting("Replace a worker that has served for this time; 0: never", "duration or 0")
    ] = 0.0  # fmt: skip
    max_rss: Annotated[
        int,
        Setting(
            "Replace a worker with more resident memory than this, shared pages included, as seen every 5 s; 0: never",
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
