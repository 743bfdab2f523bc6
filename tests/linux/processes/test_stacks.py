"""Claims about stacks as they are written and read, and about what /proc tells of a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from srvd.daemon.children.stack_file import Stacks, Trace, make_file
from srvd.daemon.loop import Loop
from srvd.linux.processes import procfs, stacks
from srvd.wire.stacks import threads_of
from tests.support.waiting import wait_for

DUMP = b'Current thread 0x01 (most recent call first):\n  File "/a/b.py", line 3 in f\n'
OURS = b'Current thread 0x01 (most recent call first):\n  File "/x/srvd/linux/processes/stacks.py", line 40 in answer\n'
REST = b'  File "/a/b.py", line 3 in f\n'


@pytest.mark.parametrize(
    ("written", "answered"),
    [
        (b"", False),
        (DUMP, False),  # for DUMP
        (b"\2" + OURS + REST + b"\3", True),  # for ASK, without our own handler's frame
        (b"\2" + OURS + REST, False),  # it is still at it
        (DUMP + b"\2" + OURS + REST + b"\3", True),  # both: late for ASK
        (DUMP + b"\2" + OURS, False),
        (b"\2" + OURS + b"\2" + OURS + REST + b"\3", True),  # begun twice
    ],
)
def test_one_dump_is_found_in_what_was_written(written: bytes, answered: bool) -> None:
    assert stacks.only(written) == (DUMP.decode() if written else "", answered)


def test_a_frame_of_an_application_that_looks_like_ours_stays() -> None:
    text = b'Thread 0x01 (most recent call first):\n  File "/app/linux/processes/stacks.py", line 40 in answer\n'
    assert stacks.only(text)[0] == text.decode()


def test_threads_are_read_line_by_line_whatever_was_written() -> None:
    text = (
        'Thread 0x0a [worker] (most recent call first):\n  File "a "b".py", line 12 in f\n  ...\n\n'
        'Current thread 0x0b (most recent call first):\n  <no Python frame>\n  File "c", line ??? in g\n'
    )
    assert threads_of(text) == [
        {
            "id": "0x0a",
            "name": "worker",
            "frames": [
                {"file": 'a "b".py', "line": 12, "function": "f"},
                {"file": "", "line": 0, "function": "..."},
            ],
        },
        {
            "id": "0x0b",
            "name": "",
            "frames": [
                {"file": "", "line": 0, "function": "<no Python frame>"},
                {"file": "c", "line": 0, "function": "g"},
            ],
        },
    ]
    (odd,) = threads_of("no head\n" + '  File "x", line 99999999999999999999 in f\n')
    assert odd["id"] == ""
    assert [frame["line"] for frame in odd["frames"]] == [0, 0]
    assert threads_of("") == []


CHILD = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.signal(signal.SIGUSR2, lambda *_: None)
print("ready", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


def test_what_a_process_does_with_a_signal_is_seen(child: int) -> None:
    seen = procfs.reach(child, signal.SIGUSR1)
    assert seen is not None
    assert (seen.caught, seen.pending, seen.blocked) == (True, False, frozenset())
    seen = procfs.reach(child, signal.SIGWINCH)
    assert seen is not None
    assert not seen.caught
    os.kill(child, signal.SIGUSR2)
    seen = procfs.reach(child, signal.SIGUSR2)
    assert seen is not None
    assert (seen.caught, seen.pending, seen.blocked) == (True, True, frozenset({child}))


def test_a_stopped_process_is_seen_to_be_stopped_and_one_that_is_gone_is_none(child: int) -> None:
    def state() -> str:
        seen = procfs.reach(child, signal.SIGUSR1)
        return "" if seen is None else seen.state

    wait_for(lambda: state() == "sleeping")
    os.kill(child, signal.SIGSTOP)
    wait_for(lambda: state() == "stopped")
    os.kill(child, signal.SIGCONT)
    wait_for(lambda: state() == "sleeping")
    os.kill(child, signal.SIGKILL)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert state() == "ended"
    assert procfs.reach(2**22 + 1, signal.SIGUSR1) is None
    assert procfs.wait_channel(2**22 + 1) == ""


def test_stacks_are_written_by_python_and_by_c() -> None:
    """In a process of its own: the handlers stay."""
    program = """
import os, signal, threading
from srvd.linux.processes import stacks
fd = os.memfd_create("stacks")
stacks.tell_to(fd)
threading.Thread(target=threading.Event().wait, daemon=True).start()
for number in (stacks.ASK, stacks.DUMP):
    os.lseek(fd, 0, 0)
    os.kill(os.getpid(), number)
    text, answered = stacks.only(os.pread(fd, 1 << 20, 0))
    assert answered == (number == stacks.ASK), answered
    assert text.count("most recent call first") == 2, text
    assert "in answer" not in text, text
    os.ftruncate(fd, 0)
print("good")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("good\n", "")


def test_a_process_runs_while_one_of_its_threads_does() -> None:
    """A thread that spins holds the interpreter; the main thread only sleeps, which is not what the process does."""
    code = "import threading, time\ndef spin():\n    while True: pass\n"
    code += "threading.Thread(target=spin, daemon=True).start()\nprint('ready', flush=True)\ntime.sleep(1000)\n"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            wait_for(lambda: procfs.state(process.pid) == "sleeping")
            wait_for(lambda: (seen := procfs.reach(process.pid, signal.SIGUSR1)) and seen.state == "running")
        finally:
            process.kill()


LATE = """
import os, signal, sys, time
from srvd.linux.processes import stacks
def answer(number, frame):
    time.sleep(0.6)
    os.write({fd}, b"\\2late, and polite\\n\\3")
stacks.tell_to({fd})
signal.signal(stacks.ASK, answer)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize("short", [True, False], ids=["of a processor", "of nothing"])
def test_who_is_short_of_a_processor_has_longer_to_be_polite(monkeypatch: pytest.MonkeyPatch, short: bool) -> None:
    """Which is what the kernel would say of a machine that has far too much to do: it runs, and gets nowhere."""
    reach = procfs.reach

    def runs(pid: int, number: int) -> procfs.Reach | None:
        seen = reach(pid, number)
        return seen and seen._replace(state=procfs.RUNNING)

    began = time.monotonic()
    monkeypatch.setattr(procfs, "reach", runs)
    monkeypatch.setattr(procfs, "processor_time", lambda _: 0.0 if short else time.monotonic() - began)
    fd = make_file()
    code = LATE.format(fd=fd)
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=[fd], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        pidfd = os.pidfd_open(child.pid)
        loop, told = Loop(), list[Trace]()
        asked = Stacks(child.pid, pidfd, fd)

        def done(trace: Trace) -> None:
            told.append(trace)
            loop.stop()

        asked.take(loop, 20.0, done)
        loop.run()
        child.kill()
    asked.close()
    os.close(pidfd)
    loop.close()
    assert ("late, and polite" in told[0].text) == short
    assert ("most recent call first" in told[0].text) != short
