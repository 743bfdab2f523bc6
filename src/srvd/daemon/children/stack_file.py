"""The stacks of one process: the file that it writes them to, and the asking for them.

Knows neither what a process is nor what becomes of its stacks. First it is asked for a polite answer, then for one at
any price (linux/stacks.py says what the difference is): so one that hangs, holds the interpreter's lock or has not even
loaded its application answers, too.

Not stderr: that pipe carries what the application writes at the same time, its reader may be behind, and nothing on it
says where a dump ends. The file is a memfd of a fixed size: who writes never waits for anybody, and cannot fill the
memory. The end of a polite answer is written; that of the other is told by the kernel: the signal is no longer pending,
and no thread has it blocked, as the one in the handler has.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable

from srvd.daemon.loop import Loop, Timer
from srvd.linux import process, procfs, stacks
from srvd.linux.procfs import Reach
from srvd.record import Record

__all__ = ["PATIENCE", "Stacks", "Trace", "make_file"]

SIZE = 512 << 10
"""Bytes of the file: 64 threads of 80 frames. What does not fit is lost, and that is told."""

PATIENCE = 2.0
"""Seconds a process has to write its stacks: it takes milliseconds, and the machine may be short of everything."""

_POLITE = 0.3
"""Seconds of them, or a half if they are fewer, in which only the polite answer is waited for."""

_SHORT = 0.5
"""A process that runs and gets less than so much of a processor is short of it, not deaf: asking it at any price can
crash it, so it has a half of the time to be polite."""

_STOPPED_PATIENCE = 0.2
_SILENT_PATIENCE = 0.1  # for a handler that has ended without a word: another one than ours
_FIRST_LOOK = 0.002
_LAST_LOOK = 0.05
_LINE = 2048  # longer than the longest line of a dump: so near to its end, the file is full


class Trace(Record):
    """What a process wrote when it was asked for its stacks."""

    text: str
    problem: str = ""  # why there are none, or not all; a sentence about "it"
    state: str = ""  # of the process: running, sleeping, stopped, uninterruptible, …


Done = Callable[[Trace], None]


def make_file() -> int:
    """A descriptor of a new file for stacks, for a process that is about to be. Raises `OSError`."""
    fd = os.memfd_create("srvd-stacks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        # Whoever writes cannot make it larger; nor smaller, or nothing could be written any more.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Stacks:
    """Owns the file. One request is under way at a time; who asks meanwhile gets the same answer."""

    __slots__ = ("_before", "_had", "_loop", "_pause", "_pid", "_pidfd", "_sent", "_signal", "_timer", "_until",
                 "_waiting", "fd")  # fmt: skip

    def __init__(self, pid: int, pidfd: int, fd: int) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self.fd = fd  # its offset is shared with the process: it says how much was written
        self._waiting: list[Done] = []
        self._timer: Timer | None = None
        self._loop: Loop
        self._before: Reach | None = None  # what it did with the signal before that was sent
        self._signal = 0  # that was sent last
        self._sent = self._until = 0.0
        self._had = 0.0  # seconds of a processor, by then
        self._pause = _FIRST_LOOK

    def take(self, loop: Loop, seconds: float, done: Done) -> None:
        """Have the process write its stacks; `done` is called once, later, and within about `seconds`."""
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._loop = loop
            self._until = time.monotonic() + seconds
            self._send(stacks.ASK)

    def close(self) -> None:
        """The process is over: whoever waits gets what it has written by now."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            self._end(None, "it has ended")
        os.close(self.fd)

    def _send(self, number: int) -> None:
        self._signal = number
        self._sent = time.monotonic()
        self._pause = _FIRST_LOOK
        self._had = procfs.processor_time(self._pid)
        self._before = procfs.reach(self._pid, number)
        if self._before is not None and self._before.caught:  # without a handler it would end the process
            os.lseek(self.fd, 0, os.SEEK_SET)
            if not self._before.pending:  # a real-time signal queues: once is enough for one that is stopped
                process.send_signal(self._pidfd, number)
        self._timer = self._loop.call_later(self._pause, self._look)

    def _look(self) -> None:
        before, seen = self._before, procfs.reach(self._pid, self._signal)
        if before is None or seen is None or process.is_over(self._pidfd):
            self._end(None, "it has ended")
        elif self._has_answered(seen):
            self._end(seen, "")
        elif time.monotonic() < min(self._until, self._sent + self._patience(seen)):
            self._pause = min(2 * self._pause, _LAST_LOOK)
            self._timer = self._loop.call_later(self._pause, self._look)
        elif self._signal == stacks.ASK and seen.state != procfs.STOPPED:
            self._send(stacks.DUMP)
        else:
            self._end(seen, self._why(seen))

    def _has_answered(self, seen: Reach) -> bool:
        written = self._written()
        if not written or (self._signal == stacks.DUMP and (seen.pending or self._is_writing(seen))):
            return False
        return self._signal == stacks.DUMP or _is_full(written) or stacks.only(self._read(written))[1]

    def _written(self) -> int:
        return min(os.lseek(self.fd, 0, os.SEEK_CUR), SIZE)

    def _read(self, size: int) -> bytes:
        return os.pread(self.fd, size, 0)

    def _is_writing(self, seen: Reach) -> bool:
        """A thread that has the signal blocked and had not before is in the handler, for all we can know."""
        return self._before is not None and bool(seen.blocked - self._before.blocked)

    def _patience(self, seen: Reach) -> float:
        """Seconds from the sending of the signal."""
        if self._before is None or not self._before.caught:
            return 0.0
        if seen.pending and seen.state == procfs.STOPPED:
            return _STOPPED_PATIENCE
        left = self._until - self._sent
        if self._signal == stacks.ASK:
            return left / 2 if self._is_short(seen) else min(_POLITE, left / 2)
        return left if seen.pending or self._is_writing(seen) or self._written() else _SILENT_PATIENCE

    def _is_short(self, seen: Reach) -> bool:
        passed = time.monotonic() - self._sent
        return seen.state == procfs.RUNNING and procfs.processor_time(self._pid) - self._had < _SHORT * passed

    def _why(self, seen: Reach) -> str:
        channel = procfs.wait_channel(self._pid)
        where = f" ({channel})" if channel else ""
        if seen.state == procfs.STOPPED:
            return "it is stopped, by SIGSTOP or a debugger: SIGCONT lets it go on"
        if not seen.caught:
            return "it has only just begun and cannot tell yet"
        if seen.state == procfs.UNINTERRUPTIBLE:
            return f"it is in a call of the kernel that nothing interrupts{where}: a disk or a network file system?"
        if self._written():
            return "it had not finished when the time was over"
        if seen.pending:
            return f"it did not take the signal in time; it is {seen.state}{where}"
        return (
            "it took the signal and wrote nothing: the application has put another handler in place, or fsize of the "
            "pool's rlimits lets it write no file"
        )

    def _end(self, seen: Reach | None, problem: str) -> None:
        self._timer = None
        written = self._written()
        text = stacks.only(self._read(written))[0]
        if written:
            self._give_back()
        if _is_full(written):
            problem = f"they are longer than {SIZE >> 10} KiB: the rest is lost"
        trace = Trace(text, problem, seen.state if seen else "ended")
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done(trace)

    def _give_back(self) -> None:
        """The pages that were written: each process keeps its file for life."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        with mmap.mmap(self.fd, SIZE) as pages:
            pages.madvise(mmap.MADV_REMOVE)


def _is_full(written: int) -> bool:
    return written > SIZE - _LINE
