"""Table of the supervised processes of one kind: watches, kills and lists them, and takes in those that come late.

Decides nothing and emits no event. A subclass defines what a message, the end of a link and the end of a process mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.output import NOTHING, Output, Read
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import PATIENCE, Trace
from srvd.daemon.family.callers import Orphan
from srvd.daemon.loop import Timer
from srvd.ids import GenerationId, WorkerId
from srvd.linux.processes import process
from srvd.wire import links

__all__ = ["KILL_PATIENCE", "LINK_PAUSE", "Entry", "Table"]

KILL_PATIENCE = 1.0
"""Seconds that a process has to write its stacks before it is killed."""

LINK_PAUSE = 0.3
"""Seconds between the end of a process's link and SIGKILL: the process may be about to end by itself."""

Id = TypeVar("Id", bound="WorkerId | GenerationId")


class Entry(Generic[Id]):
    """One supervised process.

    killed: SIGKILL was ordered; after a dump of the stacks if one was asked for.
    timer: the next step for this process; None if none is planned.
    trace: the stacks that the process wrote last.
    """

    __slots__ = ("id", "killed", "process", "timer", "trace")

    def __init__(self, identity: Id, started: Process) -> None:
        self.id = identity
        self.process = started
        self.killed = False
        self.timer: Timer | None = None
        self.trace: Trace | None = None

    @property
    def is_away(self) -> bool:
        """Whether the process was adopted and has not called yet."""
        return self.process.link is None

    def cancel(self) -> None:
        """Cancel the next step."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


E = TypeVar("E", bound=Entry[Any])


class Table(ABC, Generic[Id, E]):
    """Owns the processes of one kind, from the start to the end of each."""

    def __init__(self, outlets: Outlets, messages: tuple[type[links.Message], ...]) -> None:
        """messages: the types that a process of this kind may send."""
        self._outlets = outlets
        self._messages = messages
        self._entries: dict[Id, E] = {}
        self._pids: dict[int, Id] = {}

    # -- what is known ----------------------------------------------------------------------------------------

    def find(self, identity: Id) -> E | None:
        """The entry of a process; None if the process does not run."""
        return self._entries.get(identity)

    def pids(self) -> dict[int, Id]:
        """All processes, by pid. Not a copy."""
        return self._pids

    def missing(self) -> list[Id]:
        """The processes that were adopted and have not called yet, and those whose link has just ended."""
        return [entry.id for entry in self._entries.values() if entry.is_away]

    # -- orders -----------------------------------------------------------------------------------------------

    def kill(self, identity: Id, *, dump: bool) -> None:
        """Send SIGKILL to the process and to its process group; with `dump`, write the stacks to the log first."""
        entry = self._entries.get(identity)
        if entry is None:
            return
        entry.killed = True
        if dump:
            # Not SIGABRT, whose handler would do the same: it may leave a core file, and the application may catch it.
            entry.process.stacks.take(self._outlets.loop, KILL_PATIENCE, partial(self._log, entry))
        else:
            entry.process.kill()

    def log_stacks(self, identity: Id) -> None:
        """Write the stacks and the requests of the process to the log."""
        entry = self._entries.get(identity)
        if entry is not None:
            entry.process.stacks.take(self._outlets.loop, PATIENCE, partial(self._log, entry))

    def ask_stacks(self, identity: Id, seconds: float, done: Callable[[Trace], None]) -> bool:
        """Ask the process for its stacks; `done` is called once, within about `seconds`.

        Returns False, and calls nothing, if the process does not run.
        """
        entry = self._entries.get(identity)
        if entry is not None:
            entry.process.stacks.take(self._outlets.loop, seconds, done)
        return entry is not None

    def check(self, identity: Id) -> None:
        """Handle the end of the process if it has ended: a child with its pid waits to be reaped."""
        entry = self._entries.get(identity)
        if entry is not None and process.is_over(entry.process.pidfd):
            self._over(entry)

    def greet(self) -> None:
        """Tell all processes that have called that this daemon has adopted them."""
        for entry in self._entries.values():
            entry.process.say(links.Adopted())

    def welcome(self, identity: Id, caller: Orphan) -> bool:
        """Take in an adopted process that calls late. The table owns its descriptors then.

        Returns False if the table does not wait for this process, or if the process brings too few descriptors.
        """
        entry = self._entries.get(identity)
        if entry is None or entry.process.pid != caller.pid or not entry.is_away or caller.stderr < 0:
            return False
        entry.process.meet(self._outlets.loop, caller.link, self._output(identity, caller.stderr), caller.stacks)
        self._listen(entry)
        self._welcomed(entry, caller)
        return True

    def close(self, *, dismiss: bool) -> None:
        """Let go of all processes at the end of the daemon.

        dismiss: tell each process to leave. Else the processes wait for the next daemon.
        """
        for entry in self._entries.values():
            entry.cancel()
            if dismiss:
                self._dismiss(entry)
            entry.process.finish(self._outlets.loop)
        self._entries.clear()
        self._pids.clear()

    # -- for subclasses ---------------------------------------------------------------------------------------

    def _add(self, entry: E) -> E:
        """Watch a new process."""
        self._entries[entry.id] = entry
        self._pids[entry.process.pid] = entry.id
        self._outlets.loop.add_reader(entry.process.pidfd, self._over, entry)
        self._listen(entry)
        return entry

    def _remove(self, entry: E) -> None:
        """The process has ended, and its pid may be given to another one that is entered before it."""
        del self._entries[entry.id]
        if self._pids.get(entry.process.pid) == entry.id:
            del self._pids[entry.process.pid]

    def _restore(self, entry: E) -> E:
        """Watch a process of the former program, whose dump before a kill may be lost."""
        if entry.killed:
            self._outlets.loop.call_later(0, partial(self.kill, entry.id, dump=True))
        return self._add(entry)

    def _listen(self, entry: E) -> None:
        if entry.process.link is not None:
            self._outlets.loop.add_reader(entry.process.link.fileno(), self._hear, entry)
        entry.process.watch_output(self._outlets.loop)

    def _output(self, identity: Id, stderr: int, read: Read = NOTHING) -> Output:
        return Output(stderr, partial(self._outlets.line, identity), read)

    def _hear(self, entry: E, *, last: bool = False) -> None:
        """Take the messages that the link holds now; `last`: all of them, because the process has ended."""
        for heard in entry.process.hear(self._messages, last=last):
            if heard.message is None:
                entry.process.close_link(self._outlets.loop)
                self._link_ended(entry, heard.nonsense, last=last)
                return
            self._take(entry, heard.message)

    def _log(self, entry: E, trace: Trace) -> None:
        if trace.text or entry.trace is None:  # the second dump, before the kill, may find the process on its way out
            entry.trace = trace
        for line in _lines(self._requests(entry), trace):
            self._outlets.line(entry.id, line)
        if entry.killed:  # with a dump, which is there now
            entry.process.kill()

    def _requests(self, entry: E) -> Iterable[str]:
        """The lines for the log about the requests of a process."""
        return ()

    @abstractmethod
    def _take(self, entry: E, message: links.Message) -> None:
        """Handle one message of a process."""

    @abstractmethod
    def _link_ended(self, entry: E, nonsense: str, *, last: bool) -> None:
        """Handle the end of a link, which is closed. nonsense: what was not understood; "" for an end in order."""

    @abstractmethod
    def _over(self, entry: E) -> None:
        """Handle the end of a process, as its pidfd tells it."""

    @abstractmethod
    def _welcomed(self, entry: E, caller: Orphan) -> None:
        """Greet a process that was taken in late, and give it the orders that it has missed."""

    @abstractmethod
    def _dismiss(self, entry: E) -> None:
        """Tell a process to leave."""


def _lines(requests: Iterable[str], trace: Trace) -> Iterator[str]:
    yield from requests
    if trace.problem:
        yield f"srvd: its stacks: {trace.problem}"
    yield from trace.text.splitlines()
