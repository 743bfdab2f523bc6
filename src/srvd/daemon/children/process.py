"""What the daemon holds of a process it supervises: pidfd, link, stderr, stacks. The owner of these descriptors.

No events and no decisions: zygotes.py and workers.py tell what happened, the core what to do.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

from srvd.daemon.children.output import Output, Read
from srvd.daemon.children.stack_file import Stacks
from srvd.daemon.fd_table import FdTable
from srvd.daemon.loop import Loop
from srvd.errors import BadFrame
from srvd.linux import fds, process
from srvd.record import Record
from srvd.wire import links

__all__ = ["Heard", "Process"]

_BATCH = 32
"""Messages taken from one link in one turn of the loop: a talkative worker must not starve the others."""

_ALL = 4096
"""More than a link's buffers hold, and a bound all the same: a grandchild could have kept the other end."""


_PAGE = os.sysconf("SC_PAGE_SIZE")


class Heard(Record):
    """What a link carried: one message, or its end – in order, or by nonsense."""

    message: links.Message | None
    nonsense: str = ""


class Process:
    """A zygote or a worker. `close` gives back everything that is still open."""

    __slots__ = ("_statm", "link", "output", "pid", "pidfd", "reads_output", "stacks")

    def __init__(self, pid: int, pidfd: int, link: socket.socket | None, output: Output, stacks: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.link = link  # None: it was ended
        self.output = output
        self.stacks = Stacks(pid, pidfd, stacks)
        self.reads_output = False
        self._statm = -1

    def carry(self, name: str, kept: FdTable) -> Read:
        """Give its descriptors away by name; what was read of its stderr."""
        kept.give(f"{name} pidfd", self.pidfd)
        kept.give(f"{name} stderr", self.output.fd)
        if self.link is not None:
            kept.give(f"{name} link", self.link.fileno())
        kept.give(f"{name} stacks", self.stacks.fd)
        return self.output.carry()

    @classmethod
    def resume(cls, name: str, pid: int, kept: FdTable, output: Callable[[int], Output]) -> Process:
        """The process whose descriptors were given away under this name. Raises `Unsupported`, `OSError`."""
        link = kept.find(f"{name} link")
        pidfd, stderr, stacks = (kept.take(f"{name} {what}") for what in ("pidfd", "stderr", "stacks"))
        return cls(pid, pidfd, socket.socket(fileno=link) if link >= 0 else None, output(stderr), stacks)

    def rss(self) -> int:
        """Resident bytes; 0 when they cannot be read, or it is over.

        The file stays open: reading it again takes 1.5 µs, opening it 14 µs, psutil 40 µs (200 workers: 0.4, 3, 8 ms).
        """
        try:
            if self._statm < 0:
                self._statm = os.open(f"/proc/{self.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
                if process.is_over(self.pidfd):  # the pid may have been another's when the file was opened
                    return 0
            return int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE
        except (OSError, IndexError):  # ESRCH, or nothing to read: it has ended
            return 0

    def watch_output(self, loop: Loop) -> None:
        """Read its stderr as it comes, up to its end."""
        self.reads_output = True
        loop.add_reader(self.output.fd, self._read_output, loop)

    def _read_output(self, loop: Loop) -> None:
        if not self.output.read():
            self._stop_output(loop)

    def _stop_output(self, loop: Loop) -> None:
        if self.reads_output:
            self.reads_output = False
            loop.remove_reader(self.output.fd)

    def hear(self, allowed: tuple[type[links.Message], ...], *, last: bool = False) -> Iterator[Heard]:
        """What the link has now, up to a batch (`last`: all of it, the process is over).

        The end of the link is told each time; whoever hears it closes the link.
        """
        for _ in range(_ALL if last else _BATCH):
            if self.link is None:  # closed because of what was heard before
                return
            try:
                received = fds.receive(self.link, links.LIMIT)
                if received is None:
                    return
                message = links.decode(received[0], allowed) if received[0] else None
            except BadFrame as bad:
                yield Heard(None, bad.message)
                return
            yield Heard(message)
            if message is None:
                return

    def say(self, message: links.Message, *passed: int) -> bool:
        """Send without waiting; False: the link is full, or gone, and nothing was sent. Raises `OSError` for more."""
        if self.link is None:
            return False
        try:
            return fds.send(self.link, links.encode(message), passed)
        except (BrokenPipeError, ConnectionResetError):
            return False

    def signal(self, number: int) -> None:
        """Signal this process alone."""
        process.send_signal(self.pidfd, number)

    def kill(self) -> None:
        """SIGKILL to it and to all that it started and that stayed in its group."""
        process.send_group_signal(self.pidfd, self.pid, signal.SIGKILL)
        process.send_signal(self.pidfd, signal.SIGKILL)

    def meet(self, loop: Loop, link: socket.socket, output: Output, stacks: int) -> None:
        """It has come late, and brought what there were stand-ins for."""
        self._stop_output(loop)
        os.close(self.output.fd)
        self.stacks.close()
        self.link, self.output, self.stacks = link, output, Stacks(self.pid, self.pidfd, stacks)

    def close_link(self, loop: Loop) -> None:
        """End the link: for the other side that is the order to leave."""
        if self.link is not None:
            loop.remove_reader(self.link.fileno())
            fds.close_link(self.link)
            self.link = None

    def finish(self, loop: Loop) -> str:
        """The process is over: take what it wrote last, close everything; the tail of its stderr."""
        loop.remove_reader(self.pidfd)
        self.close_link(loop)
        self._stop_output(loop)
        self.output.finish()
        self.stacks.close()
        os.close(self.pidfd)
        if self._statm >= 0:
            os.close(self._statm)
        return self.output.tail

    def close(self) -> None:
        """Close everything of a process that was never watched."""
        self.stacks.close()
        os.close(self.pidfd)
        os.close(self.output.fd)
        if self.link is not None:
            fds.close_link(self.link)
            self.link = None
