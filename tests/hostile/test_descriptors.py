"""Claims about descriptors of the less trusted: none holds the daemon up, ends it, or has it signal a stranger."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from srvd.errors import BadFrame
from srvd.linux import fds
from tests.conftest import Starter
from tests.hostile.attackers import ANSWER, LINGERING, LINK, SOCKETS, STRANGER, as_user, needs_root
from tests.support.adoption import adopted, die, is_written, zygote_of
from tests.support.daemon import BOOT, Srvd, free_port, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

LINGER = 60
"""Seconds for which the last close of a lingering socket waits; no claim below is near to it."""

SOON = 20
"""Seconds within which the daemon must answer, on a busy machine."""


def is_quick(srvd: Srvd) -> None:
    """The daemon answers, and it replaces a worker."""
    began = time.monotonic()
    victim = srvd.kill_worker()
    srvd.wait_serving(1, without=victim)
    assert time.monotonic() - began < SOON


def test_a_foreign_descriptor_is_closed_without_waiting_for_it() -> None:
    """What kernels before 6.16 are left to: they cannot refuse."""
    ours, theirs = fds.link_pair()
    code = LINGERING + "import socket, sys\nlink = socket.socket(fileno=int(sys.argv[1]))\n"
    code += (
        f"fd, rest = lingering({LINGER})\npasses(link, b'x', fd.fileno())\nfd.close()\nprint('passed', flush=True)\n"
    )
    code += "sys.stdin.read()\n"
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    with subprocess.Popen(
        command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "passed\n"
        began = time.monotonic()
        with pytest.raises(BadFrame, match="nobody asked for"):
            fds.receive(ours, 100)
        assert time.monotonic() - began < SOON
        attacker.kill()
    ours.close()
    theirs.close()


def test_only_what_the_kernel_made_is_what_it_says() -> None:
    read, write = os.pipe()
    page = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(page, 4096)
    link, other = fds.link_pair()
    null = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    found = [fds.kind(fd) for fd in (read, write, page, link.fileno(), null)]
    assert found == [fds.PIPE, fds.PIPE, fds.MEMFD, fds.SOCKET, fds.OTHER]
    assert not fds.is_sealed(page, 4096)
    assert not fds.is_sealed(null, 0)
    fds.close_all([read, write, page, null, link.detach(), other.detach()])


@needs_root
def test_a_local_user_without_a_role_cannot_hold_the_daemon_up(starter: Starter) -> None:
    more = '[control]\nroles = { viewer = ["daemon"] }'
    srvd = starter.new(config=toml("workers = 1", more))
    srvd.let_others_in()
    srvd.start()
    code = (
        LINGERING
        + f"""
import threading
fd, rest = lingering({LINGER})
for _ in range(30):
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(sys.argv[1])
    except OSError as exc:
        print("not even connected", exc, flush=True)
        break
    passes(link, b"x", fd.fileno())
threading.Thread(target=fd.close, daemon=True).start()  # where the kernel has refused it, this one is the last
print("passed", flush=True)
time.sleep({LINGER})
"""
    )
    with as_user(STRANGER, code, str(srvd.socket)) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "passed\n"
        is_quick(srvd)
        attacker.kill()


def test_a_worker_cannot_hold_the_daemon_up_by_its_link(starter: Starter) -> None:
    code = (
        LINGERING
        + LINK
        + ANSWER
        + f"""
import threading
kept = []
def attack(environ):
    fd, rest = lingering({LINGER})
    kept.append(rest)
    passed = [passes(link, b"\\x91\\xa4Pong", fd.fileno()) for link in links()]
    threading.Thread(target=fd.close, daemon=True).start()  # where the kernel has refused it, this one is the last
    return passed
"""
    )
    srvd = starter("--workers", "1", code=code)
    assert srvd.get().split()[1:] in (["[False]"], ["[True]"])
    is_quick(srvd)


def test_a_zygote_can_pass_nothing_for_a_pidfd(starter: Starter) -> None:
    code = (
        LINGERING
        + LINK
        + """
passed = [passes(link, b"\\x93\\xa6Forked\\x01\\x01", os.eventfd(0)) for link in links()]
print("passed", passed, file=sys.stderr, flush=True)
"""
        + ANSWER
        + "attack = len\n"
    )
    srvd = starter.new("--workers", "1", code=code)
    srvd.start(ready=False)
    srvd.wait_logged("passed [")
    wait_for(lambda: srvd.status()["pools"], BOOT)
    assert "a bug in srvd" not in srvd.logged()


@pytest.mark.parametrize("lie", ["a stranger", "init", "absurd"])
def test_a_zygote_cannot_have_a_stranger_signalled(starter: Starter, lie: str) -> None:
    """Code that is imported owns the zygote: it tells of a child that is none of its own."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        pid = {"a stranger": stranger.pid, "init": 1, "absurd": 2**60}[lie]
        code = (
            f"""
from srvd.wire import links
from srvd.zygote.fork_server import ForkServer
plain = ForkServer._say
def lying(self, message, *rest):
    if isinstance(message, links.Forked):
        message = message._replace(pid={pid})
    plain(self, message, *rest)
ForkServer._say = lying
"""
            + ANSWER
            + "attack = len\n"
        )
        srvd = starter.new(config=toml('workers = 1\nboot_timeout = "2s"'), code=code)
        srvd.start(ready=False)
        wait_for(lambda: srvd.logged().count("no child of its own") or "open its pidfd" in srvd.logged(), BOOT)
        assert stranger.poll() is None
        assert "a bug in srvd" not in srvd.logged()
        if lie != "absurd":  # the zygote was killed, so the start has failed
            srvd.wait()
            assert stranger.poll() is None
        stranger.kill()


def test_a_worker_cannot_make_the_daemon_wait_for_its_stderr(starter: Starter) -> None:
    """It clears O_NONBLOCK of the reading end that it was given, leaves a child with the writing end, and dies."""
    code = (
        ANSWER
        + """
import fcntl, signal, stat
def attack(environ):
    if environ["PATH_INFO"] != "/attack":
        return ""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.set_blocking(fd, True)
        except OSError:
            continue
    if os.fork() == 0:
        os.setsid()
        os.execvp("sleep", ["sleep", "60"])
    os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    srvd = starter("--workers", "1", code=code)
    victim = srvd.serving()[0]["id"]
    began = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011 - the connection ends in one way or the other
        srvd.get("/attack")
    srvd.wait_serving(1, without=victim)
    assert time.monotonic() - began < SOON
    for one in _sleepers(srvd):
        os.kill(one, signal.SIGKILL)


def _sleepers(srvd: Srvd) -> list[int]:
    return [process.pid for process in srvd.family() if process.cmdline() == ["sleep", "60"]]


RENDEZVOUS = (
    LINGERING
    + f"""
import threading
fd, rest = lingering({LINGER})
link, until = None, time.monotonic() + 30
while link is None and time.monotonic() < until:
    names = [line.split()[-1] for line in open("/proc/net/unix") if "@srvd-" in line]
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        link.connect("\\0" + names[0][1:])
    except (OSError, IndexError):
        link = None
        time.sleep(0.01)
passed = [passes(link, b"x", fd.fileno()) for _ in range(20)]
threading.Thread(target=fd.close, daemon=True).start()
print("passed", any(passed), flush=True)
time.sleep({LINGER})
"""
)


@needs_root
def test_a_local_user_cannot_hold_up_the_next_start(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    with ThreadPoolExecutor() as pool, as_user(STRANGER, RENDEZVOUS) as attacker:
        slow = pool.submit(srvd.get, "/sleep/3")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        wait_for(lambda: is_written(srvd))
        srvd.signal(signal.SIGSTOP)
        zygote_of(srvd).kill()
        srvd.die()
        began = time.monotonic()
        adopted(srvd)
        assert slow.result().startswith("one ")
        assert time.monotonic() - began < SOON
        assert attacker.stdout is not None
        assert attacker.stdout.readline() in ("passed True\n", "passed False\n")
        attacker.kill()
    wait_for(srvd.is_ready, BOOT)


def test_a_false_scoreboard_is_not_adopted(starter: Starter) -> None:
    """A worker brings a file of its own as the scoreboard, and shortens it when the next daemon has it."""
    code = (
        ANSWER
        + """
import threading, time
from srvd.worker.supervision import reconnect
plain = reconnect.introduce
forged = os.memfd_create("forged")
os.ftruncate(forged, 1 << 20)
def lying(link, home, here):
    plain(link, home._replace(board=forged, bell=forged, stacks=forged), here)
    os.ftruncate(forged, 0)
reconnect.introduce = lying
attack = len
"""
    )
    srvd = starter("--workers", "2", code=code)
    die(srvd)
    adopted(srvd)
    wait_for(srvd.is_ready, BOOT)
    srvd.wait_serving(2)
    assert "a bug in srvd" not in srvd.logged()


def test_a_worker_cannot_hide_the_family_from_the_next_start(starter: Starter) -> None:
    """It lets go of its lock, and would write over the name of the rendezvous."""
    code = (
        ANSWER
        + """
import fcntl
def attack(environ):
    done = []
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").endswith(".family"):
                fcntl.flock(fd, fcntl.LOCK_UN)
                os.pwrite(fd, b"x" * 100, 0)
                done.append("written")
        except OSError:
            done.append("refused")
    return done
"""
    )
    config = toml("workers = 1", '[pools.other]\napp = "other:app"\nworkers = 1\nlisteners = ["web"]\n')
    srvd = starter.new(config=config, code=code)
    srvd.deploy(ANSWER + "attack = len\n", "other")
    srvd.start()
    seen = {srvd.get() for _ in range(40)}
    assert any("refused" in text for text in seen)
    assert not any("written" in text for text in seen)
    before = {worker["pid"] for pool in ("web", "other") for worker in srvd.serving(pool)}
    wait_for(lambda: is_written(srvd))
    srvd.die()
    srvd.start()
    assert {worker["pid"] for pool in ("web", "other") for worker in srvd.serving(pool)} == before


def test_the_kernel_refuses_descriptors_where_it_can(starter: Starter) -> None:
    ours, theirs = fds.link_pair()
    if fds.refuse_rights(ours):
        with pytest.raises(PermissionError):
            socket.send_fds(theirs, [b"x"], [0])
        socket.send_fds(ours, [b"x"], [0])
    else:
        assert os.uname().release < "6.16"
    ours.close()
    theirs.close()


def test_a_control_socket_that_is_made_anew_refuses_them_as_well(starter: Starter) -> None:
    srvd = starter("--workers", "1")
    srvd.socket.unlink()
    srvd.signal(signal.SIGUSR1)
    wait_for(srvd.listens)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(srvd.socket))
        if fds.refuse_rights(peer):
            with pytest.raises(PermissionError):
                socket.send_fds(peer, [b"x"], [0])
    assert srvd.call("ping") is not None


def test_a_worker_that_talks_without_end_costs_little_and_is_ended(starter: Starter) -> None:
    code = (
        LINK
        + ANSWER
        + """
import threading
def attack(environ):
    def flood():
        link = next(links())
        while True:
            link.send(b"\\x91\\xa9WatchBell")
    threading.Thread(target=flood, daemon=True).start()
"""
    )
    srvd = starter("--workers", "1", code=code)
    victim = srvd.serving()[0]["id"]
    daemon = psutil.Process(srvd.pid)
    before = sum(daemon.cpu_times()[:2])
    assert srvd.get()
    srvd.wait_logged("it talks without end", within=60)
    took = sum(daemon.cpu_times()[:2]) - before
    assert took < 2.0  # of ten seconds and more; read without end it is most of them
    srvd.wait_serving(1, without=victim)


CONNECTS = (
    SOCKETS
    + """
import struct, threading
def attack(environ):
    port = int(environ["QUERY_STRING"])
    def elsewhere():
        for _, sock in open_sockets(socket.AF_INET, socket.SOCK_STREAM):
            if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                sock.close()
                continue
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
            sock.shutdown(socket.SHUT_RDWR)
            sock.setblocking(True)
            try:
                sock.connect(("127.0.0.1", port))
                sock.setblocking(False)
                while True:
                    sock.send(bytes(65536))
            except OSError as exc:
                print("connected elsewhere", exc, flush=True)
            return
    threading.Thread(target=elsewhere).start()
"""
)


@pytest.mark.parametrize("end", ["reload", "stop"])
def test_a_listener_that_a_worker_has_connected_elsewhere_holds_nothing_up(starter: Starter, end: str) -> None:
    """Its last close is the daemon's, and waits for a peer that reads nothing."""
    config = toml("workers = 1\nbake = 0\nrollback_window = 0", bind=f"127.0.0.1:{free_port()}")
    srvd = starter(config=config, code=f"LINGER = {LINGER}\n" + ANSWER + CONNECTS)
    with socket.create_server(("127.0.0.1", 0)) as peer:
        peer.settimeout(BOOT)
        while True:  # the daemon may have it listen again first
            srvd.get(f"/?{peer.getsockname()[1]}")
            try:
                kept, _ = peer.accept()
                break
            except TimeoutError:
                continue
        with kept:
            srvd.wait_logged("connected elsewhere")
            began = time.monotonic()
            if end == "reload":
                # The daemon is told of a shutdown and reloads, but not if the connection follows before it looks.
                wait_for(lambda: "problem" in srvd.status()["listeners"][0] or "web/1#1" not in srvd.names(), SOON)
                srvd.call("reload")
                wait_for(lambda: srvd.names() and "web/1#1" not in srvd.names(), SOON)
                wait_for(lambda: "problem" not in srvd.status()["listeners"][0], SOON)
                assert srvd.get("/?0")
                is_quick(srvd)
            assert srvd.stop() == 0
            assert time.monotonic() - began < 2 * SOON
