"""Starts the interpreter that becomes a zygote, with a link, and a pipe for its output.

The daemon sends what to load later, over the link. This module imports next to nothing: `prepare` is called before
anything else of a start, so that the new interpreter boots (40 ms) while the daemon still imports its own modules.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from srvd.errors import EXIT, LoadFailed
from srvd.linux import output
from srvd.linux.processes.identity import closed_folder
from srvd.record import Record

__all__ = ["REFUSED", "Started", "discard", "pinned", "prepare", "prepared", "start", "take", "typed_interpreter"]

_LINK = 3  # the link's descriptor number in the zygote

# Not `-m srvd.zygote`: that imports `runpy` first (4 ms), and makes the zygote the application's `__main__`, which
# multiprocessing would import anew in each process that it spawns. -P: no module of the working directory may be
# imported in place of a module of srvd.
_COMMAND = "from srvd._zygote_entry import live; live()"

_NOT_FOR_APPLICATIONS = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID",
    "FDSTORE",
)  # fmt: skip
"""Variables that systemd sets for the daemon; an application would take them as meant for itself."""


REFUSED = "srvd: not started: "
"""Prefix of the message that a process writes to its stderr when it cannot execute the interpreter."""

_DEFAULT = [signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD]


class Started(Record):
    """A process that waits for its `Load`. The descriptors are the caller's."""

    pid: int
    pidfd: int
    link: socket.socket  # SOCK_SEQPACKET
    stderr: int  # the reading end of its pipe
    settled: bool = False  # limits and user of its pool were set before the exec


def typed_interpreter(folder: str) -> str:
    """Returns the path of the daemon's interpreter as the user typed it: `current/.venv/bin/srvd`, typed in `folder`,
    gives `current/.venv/bin/python`, although the script names the release into which it was installed.
    """
    place, name = os.path.split(sys.executable)
    here = os.path.realpath(place)
    for word in (sys.argv[0], sys.orig_argv[0]):
        typed = os.path.dirname(os.path.join(folder, word))
        if "/" in word and os.path.realpath(typed) == here:
            return os.path.join(typed if ".." in word else os.path.normpath(typed), name)
    return sys.executable


def pinned(program: str) -> str:
    """Returns the program with the real path of its folder. An interpreter started through a link to its folder would
    import modules later from the folder to which the link leads by then.

    Only the folder is resolved: the interpreter of a virtual environment is a link itself, and finds its packages by
    the place of that link.
    """
    folder, name = os.path.split(program)
    return os.path.join(os.path.realpath(folder), name) if folder else program


def start(
    program: str, extra: Mapping[str, str], settle: Callable[[], None] | None = None, wrap: Sequence[str] = ()
) -> Started:
    """Starts `program` (a path, or a name on PATH) with `extra` variables added to the daemon's; calls `settle` in the
    new process, before the exec. `wrap`: the words of a program in front, which executes the words after them.

    Uses posix_spawn: `subprocess` takes 10 ms to import. Raises `OSError` if there is no such program, or the kernel
    gives no process or descriptor.
    """
    words = [*wrap, program, "-P", "-c", _COMMAND, str(_LINK)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        read, write = os.pipe()
        try:
            if settle is None:
                pid = _spawn(words, _environment(extra), theirs.fileno(), write)
            else:
                pid = _fork(words, _environment(extra), theirs.fileno(), write, settle)
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


def _spawn(words: list[str], environment: Mapping[str, str], link: int, stderr: int) -> int:
    return os.posix_spawnp(
        words[0],
        words,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            # The order matters: each may overwrite a descriptor that an earlier line has copied.
            (os.POSIX_SPAWN_DUP2, stderr, 2),
            (os.POSIX_SPAWN_DUP2, link, _LINK),
            (os.POSIX_SPAWN_DUP2, 1, output.NUMBER),
            (os.POSIX_SPAWN_DUP2, 2, 1),
        ],
        # A session of its own: the daemon alone gets the signals of a terminal, and passes them on.
        setsid=True,
        setsigmask=[],
        setsigdef=_DEFAULT,
    )


def _fork(words: list[str], environment: Mapping[str, str], link: int, stderr: int, settle: Callable[[], None]) -> int:
    """Starts the program like `_spawn`, in a process that calls `settle` first, to change its user.

    The interpreter must not change the user itself: modules that it imports before – from its folder, PYTHONPATH,
    LD_PRELOAD – may belong to that user, and would run as root. A fork of the daemon imports nothing, and takes a
    millisecond.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # no handler of srvd runs in the child
    try:
        pid = os.fork()
        if pid:
            return pid
        _become(words, environment, link, stderr, settle)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _become(
    words: list[str], environment: Mapping[str, str], link: int, stderr: int, settle: Callable[[], None]
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
        os.execvpe(words[0], words, environment)  # noqa: S606 - no shell
    except LoadFailed as failed:
        problem = failed.message
    except BaseException as exc:  # the process ends here
        reason = exc.strerror if isinstance(exc, OSError) else repr(exc)
        real = os.path.realpath(words[0])
        closed = closed_folder(real) if isinstance(exc, PermissionError) else ""
        if closed:
            reason = f"uid {os.geteuid()} may not enter {closed}, which is on the way to {real}"
        problem = f"run {words[0]}: {reason}; nothing was loaded"
    try:
        os.write(2, f"{REFUSED}{problem}\n".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(EXIT.SYSTEM)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _NOT_FOR_APPLICATIONS} | dict(extra)


# The process started by `prepare`, before its pool was known. If it is never taken, it exits at the end of its link.
_prepared: list[Started] = []


def prepare() -> None:
    """Starts the daemon's own interpreter ahead of time, unless there is one.

    Ignores a failure: `take` tries again, and raises then.
    """
    if _prepared:
        return
    try:
        _prepared.append(start(pinned(sys.executable), {}))
    except OSError:
        return


def take(program: str, extra: Mapping[str, str]) -> Started:
    """Returns the prepared process if program and variables fit, else a new one. Raises `OSError` like `start`."""
    if _prepared and program == pinned(sys.executable) and not extra:
        return _prepared.pop()
    return start(program, extra)


def prepared() -> set[int]:
    """Returns the pids of prepared processes not yet taken."""
    return {one.pid for one in _prepared}


def discard(*, wait: bool = False) -> None:
    """Kills a prepared process that was not taken, and waits for its end if `wait`.

    By SIGKILL: the daemon would take a process that exits by itself for
    one that a zygote has left behind.
    """
    while _prepared:
        unwanted = _prepared.pop()
        try:  # noqa: SIM105 - contextlib would have to be imported, before anything else of a start
            signal.pidfd_send_signal(unwanted.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended already
        if wait:
            os.waitid(os.P_PIDFD, unwanted.pidfd, os.WEXITED)
        unwanted.link.close()
        os.close(unwanted.pidfd)
        os.close(unwanted.stderr)
