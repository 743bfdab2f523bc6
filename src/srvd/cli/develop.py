"""Starts the watcher of pools under development (`reload`), before the daemon begins.

Watches nothing: the process `watcher/` does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import suppress

from srvd.config.adapt.development import OFF
from srvd.config.settings import Config
from srvd.errors import ConfigInvalid, SystemRefused
from srvd.linux.processes import identity
from srvd.watcher.setup import Setup
from srvd.wire import paths

__all__ = ["begin", "end", "refuse"]

_COMMAND = "from srvd.watcher.main import live; live()"


def refuse(config: Config, *, daemonize: bool) -> None:
    """Raises `ConfigInvalid` where development mode cannot be meant: its pages show code to every client."""
    name, pool = next((name, pool) for name, pool in config.pools.items() if pool.reload != OFF)
    where = config.origins[f"pools.{name}.reload"]
    reason = ""
    if daemonize:
        reason = "--daemonize leaves the terminal"
    elif os.environ.get("NOTIFY_SOCKET") or os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()):
        reason = "systemd has started this process"
    elif config.daemon.socket == paths.OFF:
        reason = "the watcher orders reloads by the control socket, which is off"
    if reason:
        raise ConfigInvalid(
            f"{where}: pools.{name}.reload: found {json.dumps(pool.reload)}, which is for development, but {reason}; "
            "nothing was started",
            hint="leave out reload: `srvctl reload` loads new code in production",
        )


def begin(config: Config) -> int:
    """Starts the watcher, a child of this process, which becomes the daemon. Returns its pid.

    Raises `SystemRefused`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.bind(paths.watcher_address(os.getpid()))
        listener.listen(64)
        setup = json.dumps(_setup(config)._asdict())
        words = [sys.executable, "-P", "-c", _COMMAND, "3", setup]
        return os.posix_spawn(
            sys.executable,
            words,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, listener.fileno(), 3),
                (os.POSIX_SPAWN_DUP2, 2, 1),
            ],
            setsigdef=[signal.SIGTERM],
        )
    except OSError as exc:
        raise SystemRefused(f"start the watcher of files: {exc.strerror}; nothing was started") from exc
    finally:
        listener.close()


def end(watcher: int) -> None:
    """Ends the watcher, whose daemon has ended."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)


def _setup(config: Config) -> Setup:
    pools = {name: pool for name, pool in config.pools.items() if pool.reload != OFF}
    uids = {os.geteuid(), 0}
    for pool in pools.values():
        user = identity.resolve(pool.user, pool.group)
        uids |= {user.uid} if user is not None and user.uid is not None else set()
    return Setup(
        name=config.daemon.name,
        socket=config.daemon.socket,
        daemon=os.getpid(),
        folder=config.folder,
        config=config.path,
        pools={name: [pool.reload, list(pool.reload_extra)] for name, pool in pools.items()},
        terminal="" if config.daemon.log_file or not (os.isatty(0) and os.isatty(2)) else os.ttyname(0),
        uids=sorted(uids),
        about=", ".join(_about(config, name) for name in pools),
    )


def _about(config: Config, name: str) -> str:
    pool = config.pools[name]
    urls = []
    for listener in (config.listeners[one] for one in pool.listeners):
        scheme = "https" if listener.certificate else "http"
        urls += [one if one.startswith(("unix:", "fd:")) else f"{scheme}://{_visible(one)}" for one in listener.bind]
    return f"{' '.join(urls)} serves {pool.app}"


def _visible(address: str) -> str:
    """Returns an address that a browser on this machine can open."""
    host, _, port = address.rpartition(":")
    return f"{'127.0.0.1' if host in ('', '0.0.0.0', '[::]') else host}:{port}"  # noqa: S104 - compared
