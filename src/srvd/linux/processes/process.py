"""The kernel's calls on processes: pidfds and signals, exits, zombies, limits.

Does not decide which process gets a signal, and when. Never signals a pid alone, which may be reused.
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
    """How a process ended; both None if that is not known."""

    exit_code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "unknown" if self.exit_code is None else f"exit {self.exit_code}"


class Halt(Record):
    """A child that was stopped by a signal, or that runs again."""

    pid: int
    stopped: bool


def open_pidfd(pid: int) -> int:
    """Opens a pidfd (close-on-exec) of a process that has not been reaped. Raises `OSError`."""
    return os.pidfd_open(pid)


def over() -> int:
    """Returns a descriptor in place of the pidfd of a process that ended before a pidfd could be opened. Raises
    `OSError`.
    """
    read, write = os.pipe()
    os.close(write)
    return read


def is_over(pidfd: int) -> bool:
    """Tells whether the process has ended, reaped or not."""
    poll = make_poll()
    poll.register(pidfd, POLLIN)
    return bool(poll.poll(0))


def send_signal(pidfd: int, number: int) -> bool:
    """Sends a signal to the process behind the pidfd. Returns False if the process has been reaped, or has changed to a
    user that this process may not signal.
    """
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
    """Sends a signal to the process group that the process leads, also after the leader's end. Returns False if the
    group has no processes left.

    Before Linux 6.9 that takes the number of the group, which may be reused once the leader is reaped. There, processes
    that outlive the leader get no signal.
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
    """Reaps a child, and returns how it ended; None while it runs. Raises `ChildProcessError` if the process is not a
    child of this one.
    """
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    return None if result is None else _ended(result)


def next_zombie() -> int | None:
    """Returns the pid of a child that has ended and is not reaped yet, without reaping it; None if there is none."""
    try:
        result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if result is None else int(result.si_pid)


def halts() -> Iterator[Halt]:
    """Yields the children that were stopped or continued since the last call, each once, in their state of now.

    Leaves out children that a debugger stops (ptrace(2) reports them to the tracer). Reaps no child. Yields at most
    `_HALTS`: a later change raises SIGCHLD again.
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
    """Reaps a child, and returns how it ended; None if the process runs or is no child of this one. Only for a pid of
    `next_zombie()`.
    """
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    return None if result is None else _ended(result)


def reset_signals(*kept: int) -> None:
    """Resets to default each signal that Python handles or ignores, except `kept`, and unblocks all signals.

    Handlers of faulthandler stay, because Python does not know them. SIGPIPE and SIGXFSZ stay ignored, as Python sets
    them at its start.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ, *kept}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_open_files() -> int:
    """Raises the soft limit on open files to the hard limit, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _ended(result: os.waitid_result) -> Ended:
    if result.si_code == os.CLD_EXITED:
        return Ended(exit_code=result.si_status)
    return Ended(signal=result.si_status)
