"""Every setting, declared once: the TOML key, the flag, the SRVD_ variable, `srvd config` and the reference page
all come from these fields. Reading and checking them is `load.py`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DaemonSettings", "ListenerSettings", "PoolSettings"]


def setting(default: Any, help: str, *, kind: str = "", unit: str = "", flag: str = "", secret: bool = False) -> Any:  # noqa: A002
    """One setting: its default, its help (one sentence, ends without a full stop) and how its text is read.

    `kind` names a parser of `values.py` ("duration", "size", "choice:a|b", "address", "mode", "path", …); empty: by the
    field's type. `flag` names a flag of `srvd start` that sets it. A `secret` is never shown.
    """
    metadata = {"help": help, "kind": kind, "unit": unit, "flag": flag, "secret": secret}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """[daemon] and [control]: of the daemon itself."""

    name: str = setting("srvd", "Name of this instance; it names the control socket", flag="--name")
    socket: str = setting("", "Path of the control socket; empty: RUNDIR/NAME.sock", kind="path", flag="--socket")
    pidfile: str = setting("", "Write the daemon's pid to this file", kind="path", flag="--pidfile")
    log_level: str = setting("info", "Least level that is logged", kind="choice:debug|info|warning|error")
    log_format: str = setting("auto", "How log lines look; auto: text", kind="choice:auto|text|json")
    max_workers: int = setting(1024, "Most workers of all pools together; the scoreboard has as many slots")
    roles: dict[str, list[str]] = setting(
        {}, 'Who may do what: {operator = ["deploy"], viewer = ["%monitoring"]}; a % marks a group'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """[listeners.NAME]: one or more addresses that pools accept on."""

    name: str
    bind: list[str] = setting(
        ["127.0.0.1:8000"], "Addresses: HOST:PORT, [V6]:PORT, :PORT, unix:PATH, fd:N", flag="--bind"
    )
    backlog: int = setting(2048, "Connections that may wait to be accepted")
    mode: str = setting("0666", "Mode of Unix sockets", kind="mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """[pools.NAME]: an application and its workers."""

    name: str
    app: str = setting("srvd.demo:app", "The application, MODULE:ATTRIBUTE or MODULE:FACTORY()")
    listeners: list[str] = setting([], "Names of the listeners it accepts on; empty: all of them")
    workers: int = setting(2, "Number of workers", flag="--workers")
    python: str = setting("", "Interpreter that runs the application; empty: the daemon's", kind="path")
    preload: str = setting(
        "auto", "Load the application once, in the zygote; auto: unless it starts threads or connects sockets",
        kind="choice:auto|on|off",
    )  # fmt: skip
    chdir: str = setting("", "Working directory; empty: the daemon's", kind="path")
    pythonpath: list[str] = setting([], "Folders put before sys.path")
    env: dict[str, str] = setting({}, "Environment variables added for the application")
    user: str = setting("", "User the application runs as; needs root")
    group: str = setting("", "Group the application runs as; needs root")
    umask: str = setting("", "File mode creation mask; empty: the daemon's", kind="mode")
    health: str = setting(
        "", "Path a new generation must answer with 2xx or 3xx before it serves; empty: booting is enough"
    )
    strategy: str = setting("auto", "How a reload changes over", kind="choice:auto|blue-green|rolling")
    boot_timeout: float = setting(
        60.0, "To load the application, and for a worker to be ready", kind="duration", unit="s"
    )
    drain_timeout: float = setting(30.0, "For a leaving worker to finish its requests", kind="duration", unit="s")
    request_timeout: float = setting(60.0, "For one request in the application; 0: no limit", kind="duration", unit="s")
    health_timeout: float = setting(5.0, "For the health probe to answer", kind="duration", unit="s")
    bake: float = setting(
        10.0, "After a reload, a crash loop within this time switches back", kind="duration", unit="s"
    )
    rollback_window: float = setting(
        600.0, "How long the former generation stays loaded for a rollback", kind="duration", unit="s"
    )
    keepalive_timeout: float = setting(15.0, "For the next request on an idle connection", kind="duration", unit="s")
    header_timeout: float = setting(15.0, "For a request's head, from its first byte", kind="duration", unit="s")
    body_timeout: float = setting(60.0, "For more of a request's body to arrive", kind="duration", unit="s")
    send_timeout: float = setting(60.0, "For a client to take more of a response", kind="duration", unit="s")
    max_body: int = setting(1 << 30, "Longest request body; 0: no limit", kind="size", unit="bytes")
    max_connections: int = setting(1000, "Connections one worker holds at a time")
