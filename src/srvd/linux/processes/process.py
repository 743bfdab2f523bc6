"""Processes as the kernel offers them: pidfds and their signals, exits, zombies, limits.

Chooses nothing: who is signalled, and when, is decided elsewhere. A pid alone is never signalled: it may be reused.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from select import POLLIN
from select import poll as make_poll

from srvd.record import Record

__all__ = [
    "Ended",
    "Halt",
    "halts",
    "is_over",
    "next_zombie",
    "open_pidfd",
    "over",
    "raise_open_files",
    "reap",
    "reap_pid",
    "reset_signals",
    "send_group_signal",
    "send_signal",
]

_HALTS = 1024
_PROCESS_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP of pidfd_send_signal(2), since Linux 6.9


class Ended(Record):
    """How a process ended; both None: it ended, and nobody was told how."""

    exit_code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "unknown" if self.exit_code is None else f"exit {self.exit_code}"


class Halt(Record):
    """A child was stopped by a signal, or goes on."""

    pid: int
    stopped: bool


def open_pidfd(pid: int) -> int:
    """A descriptor of this process (close-on-exec), which must not have been reaped. Raises `OSError`."""
    return os.pidfd_open(pid)


def over() -> int:
    """A stand-in for the pidfd of a process that was over before one could be opened. Raises `OSError`."""
    read, write = os.pipe()
    os.close(write)
    return read


def is_over(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = make_poll()
    poll.register(pidfd, POLLIN)
    return bool(poll.poll(0))


def send_signal(pidfd: int, number: int) -> bool:
    """Signal the process behind the descriptor; False if it is gone, or has become somebody whom we may not signal."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    except OSError as exc:
        if exc.errno != errno.EBADF:  # EBADF: of `over`
            raise
        return False
    return True


def send_group_signal(pidfd: int, pid: int, number: int) -> bool:
    """Signal the group that this process leads, also what is left of it after its end; False if nothing is.

    Before Linux 6.9 that needs the group's number, which is this process's own only until it is reaped: there, what
    outlives the leader is left alone.
    """
    try:
        signal.pidfd_send_signal(pidfd, number, None, _PROCESS_GROUP)
    except (ProcessLookupError, PermissionError):
        return False
    except OSError as exc:
        if exc.errno == errno.EBADF:
            return False
        if exc.errno != errno.EINVAL:  # EINVAL: the kernel does not know the flag
            raise
    else:
        return True
    if is_over(pidfd):
        return False
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def reap(pidfd: int) -> Ended | None:
    """How this child ended, reaping it; None while it runs. Raises `ChildProcessError` if it is not our child."""
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    return None if result is None else _ended(result)


def next_zombie() -> int | None:
    """The pid of a child that ended and waits to be reaped; it is left as it is. None: there is none."""
    try:
        result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if result is None else int(result.si_pid)


def halts() -> Iterator[Halt]:
    """Children that were stopped, or went on, since they were last asked for: as they are now, each told once.

    A child that a debugger stops is not among them (ptrace(2): its tracer is told), and none ends by being asked for.
    At most `_HALTS`: SIGCHLD comes again for what happens meanwhile.
    """
    for _ in range(_HALTS):
        try:
            result = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
        except ChildProcessError:
            return
        if result is None:
            return
        yield Halt(int(result.si_pid), result.si_code == os.CLD_STOPPED)


def reap_pid(pid: int) -> Ended | None:
    """How this child ended, reaping it; None if it runs or is not ours. Only for a pid of `next_zombie()`."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if result is None else _ended(result)


def reset_signals(*kept: int) -> None:
    """Back to default for every signal but `kept` that Python handles or ignores, and nothing blocked.

    Handlers of faulthandler stay: they are not Python's. SIGPIPE and SIGXFSZ stay ignored, as Python starts with.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ, *kept}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_open_files() -> int:
    """Lift the soft limit on open files to the hard one; the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _ended(result: os.waitid_result) -> Ended:
    if result.si_code == os.CLD_EXITED:
        return Ended(exit_code=result.si_status)
    return Ended(signal=result.si_status)
