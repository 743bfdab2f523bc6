"""Claims about the table of supervised processes: what holds for each kind, shown with a kind of its own.

The processes are shells with a link, stderr and a file for stacks, as zygotes and workers have them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from srvd.daemon.children.outlets import Outlets
from srvd.daemon.children.process import Process
from srvd.daemon.children.stack_file import Trace, make_file
from srvd.daemon.children.table import Entry, Table
from srvd.daemon.children.worker import MOST_LOUD, MOST_SAID, TalkLimit
from srvd.daemon.family.callers import Orphan
from srvd.daemon.loop import Loop
from srvd.ids import WorkerId
from srvd.linux import fds
from srvd.linux.processes import process
from srvd.wire import links
from tests.support.performer import open_fds

SECONDS = 30.0
"""For anything that takes a fraction of one."""

ONE, TWO = WorkerId("jobs", 1, 1), WorkerId("jobs", 1, 2)


class Commands(Table[WorkerId, Entry[WorkerId]]):
    """A kind that records what a table tells it."""

    def __init__(self, outlets: Outlets) -> None:
        super().__init__(outlets, (links.Bye, links.Reopened))
        self.told: list[tuple[WorkerId, str]] = []

    def start(self, identity: WorkerId, code: str) -> int:
        """A Python that runs the code, with its end of the link as `link`."""
        ours, theirs = fds.link_pair()
        read, write = os.pipe()
        source = f"import os, signal, socket, sys, time\nlink = socket.socket(fileno={theirs.fileno()})\n{code}"
        with theirs, open(write, "wb") as stderr:
            started = subprocess.Popen(
                [sys.executable, "-c", source], stderr=stderr, pass_fds=[theirs.fileno()], start_new_session=True
            )  # fmt: skip
        started.returncode = 0  # the table reaps it
        output = self._output(identity, read)
        self._add(Entry(identity, Process(started.pid, os.pidfd_open(started.pid), ours, output, make_file())))
        return started.pid

    def _take(self, entry: Entry[WorkerId], message: links.Message) -> None:
        self.told.append((entry.id, type(message).__name__))

    def _link_ended(self, entry: Entry[WorkerId], nonsense: str, *, last: bool) -> None:
        self.told.append((entry.id, "nonsense" if nonsense else "link ended"))

    def _over(self, entry: Entry[WorkerId]) -> None:
        self._hear(entry, last=True)
        self._remove(entry)
        ended = process.reap(entry.process.pidfd)
        entry.process.finish(self._outlets.loop)
        self.told.append((entry.id, str(ended)))

    def _welcomed(self, entry: Entry[WorkerId], caller: Orphan) -> None:
        entry.process.say(links.Adopted())

    def _dismiss(self, entry: Entry[WorkerId]) -> None:
        entry.process.say(links.Leave())


class Rig:
    def __init__(self) -> None:
        self.loop = Loop()
        self.lines: list[tuple[str, str]] = []
        self.table = Commands(Outlets(self.loop, lambda event: None, lambda: None, self._line))

    def _line(self, source: object, line: str) -> None:
        self.lines.append((str(source), line))

    def until(self, claim: Callable[[], object]) -> None:
        deadline = time.monotonic() + SECONDS
        while not claim():
            assert time.monotonic() < deadline, (self.table.told, self.lines)
            self.loop.call_later(0.005, self.loop.stop)
            self.loop.run()


@pytest.fixture
def rig() -> Iterator[Rig]:
    before = open_fds()
    rig = Rig()
    yield rig
    pids = list(rig.table.pids())
    rig.table.close(dismiss=False)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    rig.loop.close()
    assert open_fds() == before


def message(of: links.Message) -> str:
    """Code that sends the message."""
    return f"link.send({links.encode(of)!r})\n"


WAITS = "link.recv(1000)\n"


def test_messages_and_lines_come_first_and_the_end_of_a_process_last(rig: Rig) -> None:
    pid = rig.table.start(ONE, "sys.stderr.write('a line\\n')\n" + message(links.Bye()) + "sys.exit(3)")
    assert rig.table.pids() == {pid: ONE}
    rig.until(lambda: rig.table.find(ONE) is None)
    assert [what for _, what in rig.table.told] == ["Bye", "link ended", "exit 3"]
    assert rig.lines == [("jobs/1#1", "a line")]
    assert rig.table.pids() == {}


def test_a_message_of_another_kind_ends_the_link(rig: Rig) -> None:
    rig.table.start(ONE, message(links.Forked(1, 1)) + "time.sleep(1000)")
    rig.until(lambda: rig.table.told)
    assert rig.table.told == [(ONE, "nonsense")]
    found = rig.table.find(ONE)
    assert found is not None
    assert found.is_away
    assert rig.table.missing() == [ONE]


def test_a_kill_ends_one_process_with_its_group_and_leaves_the_others(rig: Rig) -> None:
    rig.table.start(ONE, "pid = os.fork()\nif pid: sys.stderr.write(f'{pid}\\n')\n" + WAITS)
    other = rig.table.start(TWO, WAITS)
    rig.until(lambda: rig.lines)
    child = os.pidfd_open(int(rig.lines[0][1]))
    rig.table.kill(ONE, dump=False)
    rig.until(lambda: rig.table.find(ONE) is None)
    rig.until(lambda: process.is_over(child))
    os.close(child)
    with contextlib.suppress(ChildProcessError):  # it is this process's only if that is the subreaper
        os.waitpid(int(rig.lines[0][1]), 0)
    assert rig.table.pids() == {other: TWO}
    assert rig.table.told[-1] == (ONE, "signal 9")


def test_a_kill_with_a_dump_comes_after_the_stacks_even_if_there_are_none(rig: Rig) -> None:
    rig.table.start(ONE, WAITS)
    rig.table.kill(ONE, dump=True)
    rig.until(lambda: rig.table.find(ONE) is None)
    assert any("its stacks" in line for _, line in rig.lines)
    assert rig.table.told[-1] == (ONE, "signal 9")


def test_stacks_are_told_once_and_not_of_a_process_that_does_not_run(rig: Rig) -> None:
    rig.table.start(ONE, WAITS)
    traces: list[Trace] = []
    assert rig.table.ask_stacks(ONE, 0.2, traces.append)
    assert not rig.table.ask_stacks(TWO, 0.2, traces.append)
    rig.table.log_stacks(TWO)
    rig.table.kill(TWO, dump=True)
    rig.until(lambda: traces)
    (trace,) = traces
    assert trace.problem


def test_the_end_of_the_daemon_dismisses_all_or_leaves_them(rig: Rig) -> None:
    said = "os.write(2, link.recv(1000)[1:6] + b'\\n')\ntime.sleep(1000)"
    pid = rig.table.start(ONE, said)
    entry = rig.table.find(ONE)
    assert entry is not None
    fd = os.dup(entry.process.output.fd)
    rig.table.close(dismiss=True)
    assert rig.table.pids() == {}
    os.set_blocking(fd, True)
    assert os.read(fd, 100) == links.encode(links.Leave())[1:6] + b"\n"
    os.close(fd)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def caller(pid: int, stderr: int) -> tuple[Orphan, socket.socket]:
    """A process that calls after the death of a daemon, and its end of the link."""
    ours, theirs = fds.link_pair()
    here = links.CallHome(ONE.pool, ONE.generation, ONE.serial, False, [], [])
    return Orphan(here, pid, -1, ours, stderr, make_file(), -1, -1, [], -1), theirs


def test_only_the_process_that_is_waited_for_is_taken_in(rig: Rig) -> None:
    pid = rig.table.start(ONE, "link.close()\ntime.sleep(1000)")
    rig.until(lambda: rig.table.missing() == [ONE])
    stranger, strangers_end = caller(pid + 1, -1)
    assert not rig.table.welcome(ONE, stranger)
    mute, mutes_end = caller(pid, -1)
    assert not rig.table.welcome(ONE, mute)
    assert not rig.table.welcome(TWO, mute)
    read, write = os.pipe()
    expected, theirs = caller(pid, read)
    assert rig.table.welcome(ONE, expected)
    assert not rig.table.welcome(ONE, expected)
    assert rig.table.missing() == []
    assert isinstance(links.decode(theirs.recv(1000), (links.Adopted,)), links.Adopted)
    os.write(write, b"late\n")
    theirs.send(links.encode(links.Bye()))
    rig.until(lambda: ("jobs/1#1", "late") in rig.lines and (ONE, "Bye") in rig.table.told)
    for refused in (stranger, mute):
        refused.link.close()
        os.close(refused.stacks)
    for end in (strangers_end, mutes_end, theirs):
        end.close()
    os.close(write)


def test_a_worker_that_says_too_much_is_not_heard_for_the_rest_of_each_second_and_then_ended() -> None:
    talk, now = TalkLimit(), 100.0
    assert talk.pause(now) == 0.0
    for _ in range(MOST_LOUD):
        for _ in range(MOST_SAID):
            talk.count()
        now += 0.25
        assert talk.pause(now) == pytest.approx(0.75)
        now += 0.75
        talk.restart(now)
    for _ in range(MOST_SAID):
        talk.count()
    assert talk.pause(now + 0.25) is None
    assert talk.pause(now + 1.25) == 0.0  # a second of silence later
