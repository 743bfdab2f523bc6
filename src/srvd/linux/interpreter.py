"""Starts the interpreter that becomes a zygote, with a link and a pipe for what it prints.

What it is to load is told later, over the link. Imports next to nothing: `prepare` is called before anything else of a
start, so that the new interpreter boots (40 ms) while the daemon is still importing its own parts.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from srvd.errors import EXIT, LoadFailed
from srvd.linux import output
from srvd.linux.processes.identity import closed_folder
from srvd.record import Record

__all__ = ["REFUSED", "Started", "discard", "pinned", "prepare", "prepared", "start", "take", "typed_interpreter"]

_LINK = 3  # the number of the link in the zygote

# Not `-m srvd.zygote`: that imports `runpy` first (4 ms), and makes the zygote the application's `__main__`, which
# multiprocessing would import anew in each process that it spawns. -P: no module of the working directory may pass
# for one that the zygote is made of.
_COMMAND = "from srvd._zygote_entry import live; live()"

_NOT_FOR_APPLICATIONS = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
    "FDSTORE",
)  # fmt: skip
"""What systemd told the daemon, and an application would take for its own."""


REFUSED = "srvd: not started: "
"""Begins what a process writes to its stderr that could not become the interpreter."""

_DEFAULT = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD]


class Started(Record):
    """A process that waits for its `Load`. The descriptors are the caller's."""

    pid: int
    pidfd: int
    link: socket.socket  # SOCK_SEQPACKET
    stderr: int  # the end to read
    settled: bool = False  # it has become whom it was to become


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


def start(program: str, extra: Mapping[str, str], settle: Callable[[], None] | None = None) -> Started:
    """Start `program` (a path or a name on PATH) with `extra` variables beside ours; `settle` is called in the new
    process, before it is that program.

    Uses posix_spawn: `subprocess` takes 10 ms to import. Raises `OSError`: no such program, no process or descriptor.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        read, write = os.pipe()
        try:
            if settle is None:
                pid = _spawn(program, _environment(extra), theirs.fileno(), write)
            else:
                pid = _fork(program, _environment(extra), theirs.fileno(), write, settle)
            return Started(pid, os.pidfd_open(pid), ours, read, settled=settle is not None)
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
        setsigdef=_DEFAULT,
    )


def _fork(program: str, environment: Mapping[str, str], link: int, stderr: int, settle: Callable[[], None]) -> int:
    """As `_spawn`, for a process that becomes somebody else first.

    Not an interpreter that does so: what it imports before – its folder, PYTHONPATH, LD_PRELOAD – may be the user's,
    and would be run as root. A fork of the daemon imports nothing, and takes a millisecond.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no handler of ours runs in the child
    try:
        pid = os.fork()
        if pid:
            return pid
        _become(program, environment, link, stderr, settle)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _become(
    program: str, environment: Mapping[str, str], link: int, stderr: int, settle: Callable[[], None]
) -> NoReturn:
    try:
        os.setsid()
        os.dup2(stderr, 2)  # in the order of `_spawn`
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(link, _LINK) if link != _LINK else os.set_inheritable(link, True)
        os.dup2(1, output.NUMBER)
        os.dup2(2, 1)
        settle()
        for number in _DEFAULT:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(program, [program, "-P", "-c", _COMMAND, str(_LINK)], environment)  # noqa: S606 - no shell
    except LoadFailed as failed:
        problem = failed.message
    except BaseException as exc:  # the process ends here
        reason = exc.strerror if isinstance(exc, OSError) else repr(exc)
        real = os.path.realpath(program)
        closed = closed_folder(real) if isinstance(exc, PermissionError) else ""
        if closed:
            reason = f"uid {os.geteuid()} may not enter {closed}, which is on the way to {real}"
        problem = f"run {program}: {reason}; nothing was loaded"
    try:
        os.write(2, f"{REFUSED}{problem}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(EXIT.SYSTEM)


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


def prepared() -> set[int]:
    """The pids of those that wait to be taken."""
    return {one.pid for one in _prepared}


def discard() -> None:
    """End a prepared process that nobody took. By SIGKILL: one that leaves by itself would be taken for a process that
    a zygote has left behind.
    """
    while _prepared:
        unwanted = _prepared.pop()
        try:  # noqa: SIM105 - contextlib would have to be imported, before anything else of a start
            signal.pidfd_send_signal(unwanted.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it is over already
        unwanted.link.close()
        os.close(unwanted.pidfd)
        os.close(unwanted.stderr)
