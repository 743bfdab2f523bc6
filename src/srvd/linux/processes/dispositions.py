"""Records, resets and restores the signal handlers, blocked signals and timers of a process.

Only handlers of Python: a handler installed by C code stays, over a fork too. Does not decide what is forked.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection
from types import FrameType

from srvd.linux.processes import stacks
from srvd.linux.processes.deadman import SIGNAL as LIFELINE
from srvd.record import Record

__all__ = ["NOTHING", "OWN", "Dispositions", "claim", "clear_timers", "current", "put_away", "put_back", "timers"]

Handler = Callable[[int, FrameType | None], object] | int | None

OWN = frozenset({int(signal.SIGTERM), int(signal.SIGINT), int(stacks.ASK), int(stacks.DUMP), int(LIFELINE)})
"""Signals that srvd uses in a worker. Handlers that an application sets for them are replaced."""

_ENDING = frozenset({signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, *OWN})
"""Signals that a zygote does not ignore, even if the application handled them while it was loaded: SIGCHLD, and signals
by which users end a process."""

_FIXED = frozenset({signal.SIGKILL, signal.SIGSTOP})

_INTERVALS = (
    (signal.ITIMER_REAL, "alarm or ITIMER_REAL"),
    (signal.ITIMER_VIRTUAL, "ITIMER_VIRTUAL"),
    (signal.ITIMER_PROF, "ITIMER_PROF"),
)


class Dispositions(Record):
    """Handlers by the number of the signal, and the signals that are blocked."""

    handlers: dict[int, Handler]
    blocked: frozenset[int] = frozenset()

    def joined(self, later: Dispositions) -> Dispositions:
        """Returns these dispositions, replaced by `later` ones for the same signals."""
        return Dispositions({**self.handlers, **later.handlers}, self.blocked | later.blocked)


NOTHING = Dispositions({})


def current() -> Dispositions:
    """Returns the dispositions of now."""
    handlers = {int(number): signal.getsignal(number) for number in signal.valid_signals() - _FIXED}
    return Dispositions(handlers, frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))


def put_away(before: Dispositions) -> Dispositions:
    """Restores the dispositions of `before`, and returns those set since then, without srvd's own signals.

    A signal that had no handler before is ignored from now on, because timers may still send it, and by default the
    signal would end the process.
    """
    blocked = _deafen() - before.blocked - OWN
    found: dict[int, Handler] = {}
    for number, former in before.handlers.items():
        handler = signal.getsignal(number)
        if handler == former or handler is None:
            continue
        found[number] = handler
        back = signal.SIG_DFL if former is None else former
        signal.signal(number, signal.SIG_IGN if back == signal.SIG_DFL and number not in _ENDING else back)
    signal.pthread_sigmask(signal.SIG_SETMASK, before.blocked)
    return Dispositions({number: handler for number, handler in found.items() if number not in OWN}, blocked)


def put_back(wanted: Dispositions) -> None:
    """Sets the dispositions that `put_away` has returned."""
    for number, handler in wanted.handlers.items():
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted.blocked)


def claim(own: Collection[int] = OWN) -> None:
    """Unblocks srvd's own signals, which the application may have blocked, and ignores SIGPIPE, which by default ends a
    process that writes to a closed connection.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, own)
    if signal.getsignal(signal.SIGPIPE) == signal.SIG_DFL:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def timers() -> list[str]:
    """Returns the timers that run in this process, in words."""
    found = [name for which, name in _INTERVALS if signal.getitimer(which)[0] > 0]
    try:
        with open("/proc/self/timers", encoding="utf-8", errors="replace") as file:
            found += [f"timer_create, {line.split()[1]}" for line in file if line.startswith("notify:")]
    except (OSError, IndexError):  # the kernel does not list them
        pass
    return found


def clear_timers() -> None:
    """Stops the timers that a fork would stop and an exec would not: the alarm and the interval timers."""
    for which, _ in _INTERVALS:
        signal.setitimer(which, 0)


def _deafen() -> frozenset[int]:
    """Blocks all signals, and returns those that were blocked before.

    A handler of the application may run now and raise; the exception concerns a call that is over, and is dropped.
    """
    blocked: frozenset[int] | None = None
    while True:
        try:
            if blocked is None:
                blocked = frozenset(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FIXED)
        except BaseException:  # noqa: S112 - no caller is left that could use the exception
            continue
        return blocked
