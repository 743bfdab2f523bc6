"""Asks one process for the stacks of its threads, and reads them from a file that the process writes.

Does not log or keep the stacks. The process is asked twice: first by a signal that Python handles, then by one that C
code handles at any price (linux/processes/stacks.py). So a process that hangs, holds the interpreter's lock or still
loads its application answers, too.

The file is not stderr: the application writes to that pipe at the same time, the reader may be behind, and nothing
marks the end of a dump. The file is a memfd of a fixed size, so the writer never waits and cannot fill the memory. The
first kind of answer has a line at its end. The second has ended when the signal is no longer pending and no thread
blocks it, as the thread in the handler does.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable

from srvd.daemon.loop import Loop, Timer
from srvd.linux.processes import process, procfs, stacks
from srvd.linux.processes.procfs import Reach
from srvd.record import Record

__all__ = ["PATIENCE", "Stacks", "Trace", "make_file"]

SIZE = 512 << 10
"""Bytes of the file: 64 threads of 80 frames. The rest of a longer dump is lost, and the trace says so."""

PATIENCE = 2.0
"""Seconds that a process has to write its stacks. It takes milliseconds on a machine that is not overloaded."""

_POLITE = 0.3
"""Seconds for the polite answer, at most half of the time that there is."""

_SHORT = 0.5
"""Share of a processor. A process that runs and gets less is short of it, and has half of the time for the polite
answer, because the second signal can crash it."""

_STOPPED_PATIENCE = 0.2
_SILENT_PATIENCE = 0.1  # for a handler that has ended and written nothing: not srvd's
_FIRST_LOOK = 0.002
_LAST_LOOK = 0.05
_LINE = 2048  # bytes, more than the longest line of a dump; a file with less room is full


class Trace(Record):
    """The stacks that a process wrote."""

    text: str
    problem: str = ""  # why stacks are missing; a sentence about "it"; "" if none are
    state: str = ""  # of the process: running, sleeping, stopped, uninterruptible, …


Done = Callable[[Trace], None]


def make_file() -> int:
    """A descriptor of a new file for the stacks of a process to be started. Raises `OSError`."""
    fd = os.memfd_create("srvd-stacks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, SIZE)
        # A process cannot make the file larger, nor smaller, after which nothing could be written any more.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(fd)
        raise
    return fd


class Stacks:
    """Owns the file. One request is under way at a time; callers that ask meanwhile get the same answer."""

    __slots__ = ("_before", "_had", "_loop", "_pause", "_pid", "_pidfd", "_sent", "_signal", "_timer", "_until",
                 "_waiting", "fd")  # fmt: skip

    def __init__(self, pid: int, pidfd: int, fd: int) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self.fd = fd  # its offset, shared with the process, tells how much was written
        self._waiting: list[Done] = []
        self._timer: Timer | None = None
        self._loop: Loop
        self._before: Reach | None = None  # how the process treated the signal before it was sent
        self._signal = 0  # number of the signal that was sent last
        self._sent = self._until = 0.0
        self._had = 0.0  # seconds of a processor that the process had used by then
        self._pause = _FIRST_LOOK

    def take(self, loop: Loop, seconds: float, done: Done) -> None:
        """Ask the process for its stacks; `done` is called once, later, within about `seconds`."""
        self._waiting.append(done)
        if len(self._waiting) == 1:
            self._loop = loop
            self._until = time.monotonic() + seconds
            self._send(stacks.ASK)

    def close(self) -> None:
        """Close the file at the end of the process. Callers that wait get what the process has written by now."""
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
        if self._before is not None and self._before.caught:  # without a handler the signal would end the process
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
        """Whether a thread seems to be in the handler: it blocks the signal, and did not before."""
        return self._before is not None and bool(seen.blocked - self._before.blocked)

    def _patience(self, seen: Reach) -> float:
        """Seconds that the process has, from the sending of the signal."""
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
        """Free the pages that were written: the file stays open as long as the process runs."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        with mmap.mmap(self.fd, SIZE) as pages:
            pages.madvise(mmap.MADV_REMOVE)


def _is_full(written: int) -> bool:
    return written > SIZE - _LINE
