"""Claims about zygotes and workers whose daemon has died: they serve on, call for the next one, and leave in time.

Here the test is the next daemon. A whole one is in system/test_adoption.py.
"""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from srvd.core.events import ZygoteGone
from srvd.core.state.model import SupervisorState
from srvd.daemon.children.stack_file import make_file
from srvd.daemon.family.callers import Calls, Orphan
from srvd.daemon.family.lock import FamilyLock
from srvd.daemon.recovery import late_callers
from srvd.daemon.recovery.late_callers import LateCallers
from srvd.daemon.recovery.rejects import Reject
from srvd.errors import SystemRefused
from srvd.ids import GenerationId, WorkerId
from srvd.linux import fds, rendezvous
from srvd.linux.processes import deadman, process
from srvd.linux.scoreboard import Board
from srvd.wire import links
from tests.support.performer import Stage
from tests.support.waiting import wait_for

CHATTY = """
import os, sys, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/chat":
        for n in range(3000):
            print(f"line {n} " + 1000 * "x", file=sys.stderr)
    if path == "/stuck":
        time.sleep(1000)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


USERS = {"web": {os.geteuid()}}


class Family:
    """A stage whose daemon can die, and the calls of those who are left."""

    def __init__(self, folder: Path) -> None:
        self.family_lock = FamilyLock.open(str(folder / "control.sock.family"))
        self.stage = Stage(folder, family_lock=self.family_lock)
        self.heard: list[Orphan] = []
        self.calls: Calls | None = None

    def die(self) -> None:
        """As the kernel does it: links end, without a word."""
        self.stage.processes.close(dismiss=False)

    def wait_call(self, who: WorkerId | GenerationId) -> Orphan:
        """The call of this one, when it has come; others' are kept."""
        if self.calls is None:
            self.calls = Calls(self.family_lock.rendezvous, USERS)
        calls = self.calls

        def look() -> Orphan | None:
            self.heard += calls.hear(0.05)
            return next((orphan for orphan in self.heard if orphan.id == who), None)

        found = wait_for(look)
        assert found is not None
        self.heard.remove(found)
        return found

    def _dismiss_all(self) -> bool:
        """Send away who calls, until nobody is left."""
        assert self.calls is not None
        self.heard += self.calls.hear(0.05)
        for orphan in self.heard:
            orphan.dismiss()
        self.heard.clear()
        return self.stage._childless()

    def close(self) -> None:
        if self.calls is not None:
            wait_for(self._dismiss_all)
            self.calls.close()
        self.stage.close()
        self.family_lock.close(remove=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Family]:
    found = Family(tmp_path)
    yield found
    found.close()


def get(address: tuple[str, int], path: str = "/") -> str:
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def say(orphan: Orphan, message: links.Message, *passed: int) -> None:
    assert fds.send(orphan.link, links.encode(message), passed)


def hear(orphan: Orphan, allowed: tuple[type[links.Message], ...]) -> tuple[links.Message, list[int]]:
    orphan.link.settimeout(20)
    received = fds.receive(orphan.link, links.LIMIT, 1, wait=True)
    assert received is not None
    return links.decode(received[0], allowed), received[1]


def ends(pid: int) -> Callable[[], bool]:
    """Whether it has: a zombie is ours to reap."""
    pidfd = process.open_pidfd(pid)

    def look() -> bool:
        over = process.is_over(pidfd)
        if over:
            os.close(pidfd)
        return over

    return look


def test_an_orphan_serves_on_and_obeys_the_next_daemon(home: Family) -> None:
    stage = home.stage
    worker = stage.fork(stage.load(CHATTY), 1)
    address, pid = stage.serve(worker), stage.pid(worker)
    over = ends(pid)
    home.die()
    assert get(address) == str(pid)
    orphan = home.wait_call(worker)
    assert (orphan.pid, orphan.call.draining) == (pid, False)
    say(orphan, links.Adopted())
    assert get(address) == str(pid)
    say(orphan, links.Drain(5.0, leaving=False, left_over=[]))
    assert isinstance(hear(orphan, links.FROM_WORKER)[0], links.Closed)
    assert isinstance(hear(orphan, links.FROM_WORKER)[0], links.Bye)
    wait_for(over)
    orphan.close()


def test_an_orphan_brings_what_the_next_daemon_needs(home: Family) -> None:
    stage = home.stage
    worker = stage.fork(stage.load(CHATTY), 1)
    address = stage.serve(worker)
    home.die()
    orphan = home.wait_call(worker)
    board = Board(os.dup(orphan.board), 256, 1)
    get(address)
    wait_for(lambda: board.tally(0) == (1, 0))  # counted when the answer is out
    board.close()
    listener = socket.socket(fileno=os.dup(orphan.listeners[0]))
    assert listener.getsockname() == address
    listener.close()
    orphan.dismiss()


def test_the_family_is_known_to_live_by_its_lock(home: Family, tmp_path: Path) -> None:
    worker = home.stage.fork(home.stage.load(CHATTY), 1)
    home.stage.serve(worker)
    home.die()
    os.close(home.family_lock.lock)  # the daemon's own
    again = FamilyLock.open(str(tmp_path / "control.sock.family"))
    assert not again.is_held
    assert again.rendezvous == home.family_lock.rendezvous
    home.family_lock = again
    again.join()
    third = FamilyLock.open(str(tmp_path / "control.sock.family"))
    assert not third.is_held
    third.close(remove=False)
    home.wait_call(worker).dismiss()


def test_what_an_orphan_writes_waits_for_the_next_daemon_and_holds_nothing_up(home: Family) -> None:
    stage = home.stage
    worker = stage.fork(stage.load(CHATTY, threads=2), 1)
    address = stage.serve(worker)
    home.die()
    for _ in range(3):
        assert get(address, "/chat")
    orphan = home.wait_call(worker)
    text = b""
    while data := _read(orphan.stderr):
        text += data
    assert b"line 2999" in text
    assert len(text) <= 1 << 20
    orphan.dismiss()


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def test_orphans_leave_when_nobody_comes(home: Family) -> None:
    stage = home.stage
    generation = stage.load(CHATTY, orphan_timeout=0.5)
    worker = stage.fork(generation, 1)
    address = stage.serve(worker)
    over, zygote_over = ends(stage.pid(worker)), ends(stage.zygote_pid(generation))
    home.die()
    assert get(address)
    wait_for(over)
    wait_for(zygote_over)


@pytest.mark.slow
def test_a_worker_that_does_not_leave_in_its_time_is_ended_by_its_zygote(home: Family) -> None:
    stage = home.stage
    generation = stage.load(CHATTY, orphan_timeout=0.1, drain_timeout=0.1)
    worker = stage.fork(generation, 1)
    address = stage.serve(worker)
    over, zygote_over = ends(stage.pid(worker)), ends(stage.zygote_pid(generation))
    with socket.create_connection(address) as client:
        client.sendall(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: stage.board(generation).read(0).busy)
        home.die()
        wait_for(over, within=30)
    wait_for(zygote_over)


@pytest.mark.parametrize("case", ["no patience", "standby"])
def test_who_is_of_no_use_without_a_daemon_leaves_at_once(home: Family, case: str) -> None:
    stage = home.stage
    worker = stage.fork(stage.load(CHATTY, orphan_timeout=0.0 if case == "no patience" else 60.0), 1)
    if case == "no patience":
        stage.serve(worker)
    over = ends(stage.pid(worker))
    home.die()
    wait_for(over)
    if case == "standby":
        home.wait_call(GenerationId(*worker[:2])).dismiss()


def test_who_was_told_to_leave_with_all_others_waits_for_nobody(home: Family) -> None:
    stage = home.stage
    generation = stage.load(CHATTY)
    worker = stage.fork(generation, 1)
    stage.serve(worker)
    over, zygote_over = ends(stage.pid(worker)), ends(stage.zygote_pid(generation))
    stage.processes.close()
    wait_for(over)
    wait_for(zygote_over)


def test_an_orphaned_zygote_tells_who_died_meanwhile_and_forks_for_the_next_daemon(home: Family) -> None:
    stage = home.stage
    generation = stage.load(CHATTY)
    worker, other = stage.fork(generation, 1), stage.fork(generation, 2)
    stage.serve(worker)
    address = stage.serve(other)
    home.die()
    victim = stage.pid(worker)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{victim}"))
    zygote = home.wait_call(generation)
    assert zygote.call.children == [[2, stage.pid(other)]]
    zygote.close()  # who heard it died, too: the next one is told the same
    zygote = home.wait_call(generation)
    assert zygote.ends() == [(1, process.Ended(signal=signal.SIGKILL))]
    say(zygote, links.Adopted())
    ours, theirs = fds.link_pair()
    read, write = os.pipe()
    stacks, end = make_file(), deadman.end_of(zygote.lifeline)
    say(zygote, links.Fork(3, 7), theirs.fileno(), write, stacks, read, end)
    forked, passed = hear(zygote, links.FROM_ZYGOTE)
    assert isinstance(forked, links.Forked)
    ours.settimeout(20)
    assert isinstance(links.decode(ours.recv(links.LIMIT), links.FROM_WORKER), links.Ready)
    assert get(address) == str(stage.pid(other))
    ours.send(links.encode(links.Drain(1.0, leaving=True, left_over=[])))
    fds.close_all([ours.detach(), theirs.detach(), read, write, stacks, end, *passed])
    zygote.dismiss()
    home.wait_call(other).dismiss()


def test_a_daemon_that_dies_before_it_has_adopted_is_followed_by_the_next(home: Family) -> None:
    stage = home.stage
    generation = stage.load(CHATTY)
    worker = stage.fork(generation, 1)
    address = stage.serve(worker)
    home.die()
    for adopted in (False, True, False):
        for who in (worker, generation):
            orphan = home.wait_call(who)
            if adopted:
                say(orphan, links.Adopted())
            orphan.close()
        assert get(address)
    home.wait_call(generation).dismiss()
    home.wait_call(worker).dismiss()


def test_whoever_says_nothing_that_makes_sense_is_not_of_the_family(home: Family) -> None:
    stage = home.stage
    worker = stage.fork(stage.load(CHATTY), 1)
    stage.serve(worker)
    home.die()
    home.wait_call(worker).dismiss()
    assert home.calls is not None
    for datagram in (b"", b"\xc1", _claim("other")):
        stranger = rendezvous.call(home.family_lock.rendezvous, os.geteuid())
        assert stranger is not None
        fds.send(stranger, datagram)
        stranger.settimeout(0.05)

        def refused(link: socket.socket = stranger) -> bool:
            assert home.calls is not None
            home.heard += home.calls.hear()
            try:
                return link.recv(100) == b""
            except TimeoutError:
                return False
            except ConnectionResetError:
                return True

        wait_for(refused)
        stranger.close()
    assert {orphan.id for orphan in home.heard} <= {GenerationId(*worker[:2])}


def _claim(pool: str) -> bytes:
    return links.encode(links.CallHome(pool, 1, 1, False, [], []))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_an_orphan_tells_nothing_to_somebody_who_is_not_its_daemon() -> None:
    name = rendezvous.new_name()
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            waiting = rendezvous.Rendezvous(name)
            os.write(go, b"x")
            signal.pause()
            waiting.close()
        finally:
            os._exit(0)
    try:
        assert os.read(ready, 1) == b"x"
        assert rendezvous.call(name, 65533) is None
        friend = rendezvous.call(name, 65534)
        assert friend is not None
        friend.close()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        fds.close_all([ready, go])


def test_a_zygote_that_still_loads_ends_with_its_daemon(home: Family) -> None:
    generation = home.stage.start("import time\ntime.sleep(1000)\n")
    over = ends(home.stage.zygote_pid(generation))
    home.die()
    wait_for(over)
    assert not home.stage.of(ZygoteGone, generation)


def test_a_daemon_that_is_short_of_descriptors_hears_them_later_and_does_not_spin(home: Family) -> None:
    stage = home.stage
    worker = stage.fork(stage.load(CHATTY), 1)
    stage.serve(worker)
    home.die()
    calls = Calls(home.family_lock.rendezvous, USERS)
    heard: list[int] = []

    class Counted(LateCallers):
        def _heard(self, calls: Calls) -> list[Orphan]:
            found = super()._heard(calls)
            heard.append(len(found))
            return found

    late = Counted(stage.loop, stage.processes, SupervisorState(), lambda event: None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        late.hear(calls, [])
        stage.spin(0.5)
        assert set(heard) == {0}
        assert len(heard) < 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        deadline = time.monotonic() + 20
        while sum(heard) < 2 and time.monotonic() < deadline:  # who is not known is sent away
            stage.spin(0.01)
        wait_for(stage._childless)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        late.close()


def test_everybody_who_is_sent_away_has_the_same_time(home: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_callers, "LEAVE", 2.0)
    calls = Calls(home.family_lock.rendezvous, USERS)
    late = LateCallers(home.stage.loop, home.stage.processes, SupervisorState(), lambda event: None)
    late.hear(calls, [])
    sleepers = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in range(2)]
    try:
        for sleeper in sleepers:
            for _ in range(2):  # it called, and its zygote named it
                late._add([Reject(sleeper.pid, process.open_pidfd(sleeper.pid))])
            home.stage.spin(1.2)
        assert sleepers[0].wait(1) == -signal.SIGKILL
        assert sleepers[1].poll() is None
        home.stage.spin(1.0)
        assert sleepers[1].wait(5) == -signal.SIGKILL
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
        late.close()


def test_a_name_that_somebody_else_has_taken_refuses_the_start_with_the_reason(home: Family) -> None:
    taken = rendezvous.Rendezvous(home.family_lock.rendezvous)
    try:
        with pytest.raises(SystemRefused, match="Address already in use; nothing was started") as refused:
            Calls(home.family_lock.rendezvous, USERS)
        assert "ss -xlp" in refused.value.hint
    finally:
        taken.close()
