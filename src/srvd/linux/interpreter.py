"""Starts the interpreter that becomes a zygote, with a link and a pipe for what it prints.

What it is to load is told later, over the link. Imports next to nothing: `prepare` is called before anything else of a
start, so that the new interpreter boots (40 ms) while the daemon is still importing its own parts.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping

from srvd.linux import output
from srvd.record import Record

__all__ = ["Started", "discard", "pinned", "prepare", "start", "take", "typed_interpreter"]

_LINK = 3  # the number of the link in the zygote

# Not `-m srvd.zygote`: that imports `runpy` first (4 ms), and makes the zygote the application's `__main__`, which
# multiprocessing would import anew in each process that it spawns. -P: no module of the working directory may pass
# for one that the zygote is made of.
_COMMAND = "from srvd.zygote.life import live; live()"

_NOT_FOR_APPLICATIONS = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
    "FDSTORE",
)  # fmt: skip
"""What systemd told the daemon, and an application would take for its own."""


class Started(Record):
    """A process that waits for its `Load`. The descriptors are the caller's."""

    pid: int
    pidfd: int
    link: socket.socket  # SOCK_SEQPACKET
    stderr: int  # the end to read


def typed_interpreter(folder: str) -> str:
    """Our own interpreter by the name that a person typed: `current/.venv/bin/srvd`, typed in `folder`, is run by
    `current/.venv/bin/python`, though the script names the release that it was installed in.
    """
    place, name = os.path.split(sys.executable)
    here = os.path.realpath(place)
    for word in (sys.argv[0], sys.orig_argv[0]):
        typed = os.path.dirname(os.path.join(folder, word))
        if "/" in word and os.path.realpath(typed) == here:
            return os.path.join(typed if ".." in word else os.path.normpath(typed), name)
    return sys.executable


def pinned(program: str) -> str:
    """The program by the real path of its folder. An interpreter that was found by a link would import what it needs
    later from wherever the link leads by then.

    Only the folder: a virtual environment's interpreter is a link, and by its own place it finds its packages.
    """
    folder, name = os.path.split(program)
    return os.path.join(os.path.realpath(folder), name) if folder else program


def start(program: str, extra: Mapping[str, str]) -> Started:
    """Start `program` (a path or a name on PATH) with `extra` variables beside ours.

    Uses posix_spawn: `subprocess` takes 10 ms to import. Raises `OSError`: no such program, no process or descriptor.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        read, write = os.pipe()
        try:
            pid = _spawn(program, _environment(extra), theirs.fileno(), write)
            return Started(pid, os.pidfd_open(pid), ours, read)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


def _spawn(program: str, environment: Mapping[str, str], link: int, stderr: int) -> int:
    return os.posix_spawnp(
        program,
        [program, "-P", "-c", _COMMAND, str(_LINK)],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            # In this order: each takes a number that one of those before it may have had.
            (os.POSIX_SPAWN_DUP2, stderr, 2),
            (os.POSIX_SPAWN_DUP2, link, _LINK),
            (os.POSIX_SPAWN_DUP2, 1, output.NUMBER),
            (os.POSIX_SPAWN_DUP2, 2, 1),
        ],
        # A session of its own: what a terminal sends to the daemon's group is for the daemon to pass on.
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD],
    )


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _NOT_FOR_APPLICATIONS} | dict(extra)


# The one that was started before it was known what for. If nobody takes it, it sees the end of its link and leaves.
_prepared: list[Started] = []


def prepare() -> None:
    """Start our own interpreter ahead of time; what cannot be started now is tried again, or refused, when needed."""
    try:
        _prepared.append(start(pinned(sys.executable), {}))
    except OSError:
        return


def take(program: str, extra: Mapping[str, str]) -> Started:
    """The prepared process if it is the one that is wanted, else a new one. Raises `OSError` as `start` does."""
    if _prepared and program == pinned(sys.executable) and not extra:
        return _prepared.pop()
    return start(program, extra)


def discard() -> None:
    """Let a prepared process go that nobody took: it sees the end of its link and leaves."""
    while _prepared:
        unwanted = _prepared.pop()
        unwanted.link.close()
        os.close(unwanted.pidfd)
        os.close(unwanted.stderr)
