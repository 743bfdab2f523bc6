"""Claims about hostile and clumsy peers: each gets its own end, and the daemon serves on, no larger than before."""

from __future__ import annotations

import array
import contextlib
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from srvd.client.connection import Client
from srvd.daemon.control.admission import ConnectionSlots, LogLimiter, TokenBucket
from srvd.daemon.control.server import Limits, Peer
from srvd.errors import Busy, NoDaemon, SrvdError
from srvd.linux import fds
from srvd.linux.processes.process import raise_open_files
from srvd.wire.codec import encode
from tests.daemon.control.test_requests import Raw
from tests.support.fake_daemon import Fake
from tests.support.waiting import wait_for
from tests.wire.test_codec import framed, packed

PING = encode({"type": "req", "id": 1, "method": "ping"})
STOP = encode({"type": "req", "id": 1, "method": "stop", "args": {"now": True}})


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    with Fake(str(tmp_path / "a.sock")) as running:
        yield running


def connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)  # blocking: while the backlog is full it waits its turn
    sock.settimeout(10)
    return sock


def links(fake: Fake) -> int:
    return fake.do(lambda: len(fake.server._connections))


def read_to_end(sock: socket.socket) -> bytes:
    """Everything that came before the end; a reset is an end too: our last bytes were not read."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            got += chunk
    return got


def send_all(sock: socket.socket, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(data)


def test_every_truncation_of_an_order_changes_nothing(fake: Fake) -> None:
    for length in range(len(STOP)):
        with connected(fake.path) as sock:
            sock.sendall(STOP[:length])
    wait_for(lambda: links(fake) == 0)
    with Client.connect(fake.path) as client:
        client.call("ping")
    assert [method for method, _, _ in fake.backend.asked] == ["ping"]


@pytest.mark.parametrize(
    "bomb",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\x7f\xff\xff\xff" + b"\x91" * 1_000,
        framed(b"\x91" * (16 << 20)),
        framed(b"\x81\xa1a" + b"\x91" * 60_000),
        framed(b"\x81\xa1a\xdd\xff\xff\xff\xff"),
        framed(b"\x81\xa1a\xc7\x00\x01"),
        packed({"type": "req", "id": 1, "method": "scale", "args": {"timeout": float("nan"), "size": 1}}),
        packed({"type": "req", "id": 1, "method": "scale", "args": {"timeout": float("inf"), "size": 1}}),
        b"\0\0\0\0",
        framed(b"\xc0"),
    ],
    ids=lambda bomb: bomb[:8].hex(),
)
def test_a_bad_frame_gets_one_error_and_the_end(fake: Fake, bomb: bytes) -> None:
    with Raw(fake.path) as raw:
        send_all(raw.sock, bomb)
        assert [raw.next()["error"]["code"], raw.next()["reason"]] == ["bad_frame", "bad_frame"]
        assert read_to_end(raw.sock) == b""
    with Client.connect(fake.path) as client:
        client.call("ping")
    assert [method for method, _, _ in fake.backend.asked] == ["ping"]


def test_random_bytes_never_reach_the_backend(fake: Fake) -> None:
    rng = random.Random(7)
    for _ in range(60):
        noise = rng.randbytes(rng.randrange(1, 300))
        with connected(fake.path) as sock:
            send_all(sock, rng.choice([noise, framed(noise), b"\0\0\0" + noise]))
    with Client.connect(fake.path) as client:
        client.call("ping")
    assert [method for method, _, _ in fake.backend.asked] == ["ping"]


def test_garbage_is_logged_once_a_minute_of_a_user(fake: Fake) -> None:
    for _ in range(5):
        with Raw(fake.path) as raw:
            raw.sock.sendall(b"GARBAGE")
            raw.next()
    assert [f"uid {os.getuid()}" in text and "limit" in text for _, text, _ in fake.logged] == [True]


def test_a_frame_that_is_begun_and_not_ended_has_five_seconds_from_its_first_byte(tmp_path: Path) -> None:
    assert Limits().frame == 5.0
    with Fake(str(tmp_path / "b.sock"), limits=Limits(frame=0.3)) as fake, Raw(fake.path) as raw:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in STOP:  # a byte now and then does not help
                raw.sock.sendall(bytes([byte]))
                if time.monotonic() - began > 5 or wait_for_input(raw.sock, 0.05):
                    break
        assert raw.next()["error"]["code"] == "bad_frame"
        assert time.monotonic() - began > 0.2


def wait_for_input(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        sock.settimeout(10)


def test_an_idle_connection_ends_and_one_that_waits_does_not(tmp_path: Path) -> None:
    assert Limits().idle == 60.0
    with Fake(str(tmp_path / "b.sock"), limits=Limits(idle=0.1)) as fake, Raw(fake.path) as idle, Raw(fake.path) as raw:
        raw.say(type="req", id=1, method="reload")
        assert raw.next()["type"] == "progress"
        assert (idle.next()["reason"], idle.next()["type"]) == ("idle", "eof")
        fake.do(lambda: fake.backend.finish(1))
        assert raw.next()["type"] == "ok"
        assert raw.next()["reason"] == "idle"


def test_descriptors_that_a_peer_passes_are_refused_or_discarded(fake: Fake) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with Raw(fake.path) as raw:
        server = fake.server
        fake.do(lambda: [fds.refuse_rights(link.sock, on=False) for link in server._connections])
        theirs = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
        raw.sock.sendmsg([PING], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", theirs))])
        assert raw.next()["type"] == "ok"
        for fd in theirs:
            os.close(fd)
        # This end, and the server's: the server runs in this process.
        wait_for(lambda: len(os.listdir("/proc/self/fd")) == before + 2)


def test_a_peer_that_asks_and_never_reads_stops_being_answered(tmp_path: Path) -> None:
    with Fake(str(tmp_path / "b.sock"), limits=Limits(stall=0.5)) as fake, Raw(fake.path) as deaf:
        fake.backend.pools *= 100
        deaf.sock.settimeout(0.3)
        status = encode({"type": "req", "id": 1, "method": "status"})
        with contextlib.suppress(TimeoutError):
            while True:
                deaf.sock.sendall(status * 50)
        waiting = fake.do(lambda: sum(len(link._send_queue) for link in fake.server._connections))
        assert 256 << 10 < waiting < 1 << 20
        with Client.connect(fake.path) as client:
            assert client.call("ping")
        wait_for(lambda: links(fake) == 0, within=5)


def test_requests_sent_in_one_go_are_all_answered_in_their_order(fake: Fake) -> None:
    with Raw(fake.path) as raw:
        for number in range(1, 501):
            raw.say(type="req", id=number, method="ping")
        assert [raw.next()["id"] for _ in range(500)] == list(range(1, 501))


def test_one_user_has_sixteen_seats_an_admin_four_more_and_the_next_is_told_to_wait(fake: Fake) -> None:
    with contextlib.ExitStack() as stack:
        seated = [stack.enter_context(Raw(fake.path)) for _ in range(20)]
        with pytest.raises(Busy, match="too many"):
            Client.connect(fake.path)
        assert links(fake) == 20
        seated[3].sock.close()
        wait_for(lambda: links(fake) == 19)
        stack.enter_context(Client.connect(fake.path))


def test_seats_sixty_ordinary_ones_and_four_only_for_admins() -> None:
    slots = ConnectionSlots(Limits(), 0.0)
    viewers = [Peer(1_000 + n // 16, 0, 0, "v", "viewer") for n in range(65)]
    taken = [slots.take(viewer, float(second)) for second, viewer in enumerate(viewers)]
    assert taken == ["ordinary"] * 60 + [""] * 5
    root = Peer(0, 0, 0, "root", "admin")
    assert [slots.take(root, 66.0) for _ in range(5)] == ["reserved"] * 4 + [""]
    slots.free(viewers[0], "ordinary")
    assert [slots.take(root, 67.0), slots.take(viewers[0], 67.0)] == ["ordinary", ""]
    slots.free(root, "reserved")
    assert slots.take(root, 68.0) == "reserved"


def test_below_admins_seats_are_taken_at_a_rate_and_without_a_role_never() -> None:
    slots = ConnectionSlots(Limits(accept_rate=1.0, accept_burst=2), 0.0)
    viewer, root = Peer(1_000, 0, 0, "v", "viewer"), Peer(0, 0, 0, "root", "admin")
    assert [slots.take(viewer, 0.0) for _ in range(3)] == ["ordinary", "ordinary", ""]
    assert slots.take(root, 0.0) == "ordinary"
    assert slots.take(Peer(1_001, 0, 0, "", ""), 60.0) == ""
    assert [slots.take(viewer, 60.0) for _ in range(3)] == ["ordinary", "ordinary", ""]


def test_the_gate_lets_a_burst_through_and_then_a_rate() -> None:
    bucket = TokenBucket(100, 8, 0.0)
    assert [bucket.pass_one(0.0) > 0 for _ in range(9)] == [False] * 8 + [True]
    assert bucket.pass_one(0.0) == pytest.approx(0.02)
    assert [bucket.pass_one(0.02) > 0 for _ in range(3)] == [False, False, True]


def test_one_kind_of_thing_is_let_through_once_a_minute_and_kinds_are_bounded() -> None:
    seldom = LogLimiter()
    assert [seldom.may("garbled", 1, now) for now in (0.0, 59.0, 60.0, 61.0)] == [True, False, True, False]
    assert seldom.may("garbled", 2, 61.0)
    for uid in range(1_000):
        seldom.may("garbled", uid, 61.0)
    assert len(seldom._last) <= LogLimiter.MOST_KINDS


def test_a_flood_of_a_thousand_connections_ends_and_the_socket_serves_on(tmp_path: Path) -> None:
    raise_open_files()  # as the daemon does
    with Fake(str(tmp_path / "b.sock"), limits=Limits(look_rate=1_000)) as fake:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(connected(fake.path)) for _ in range(1_000)]
            wait_for(lambda: all(_was_told(sock) for sock in socks), within=30)
            assert links(fake) == 20
        wait_for(lambda: links(fake) == 0)
        with Client.connect(fake.path) as client:
            client.call("ping")
        assert len(fake.logged) == 1  # the flood fills no log


def _was_told(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1, socket.MSG_PEEK) is not None
    except BlockingIOError:
        return False


def test_without_descriptors_a_peer_is_refused_and_the_daemon_lives(fake: Fake) -> None:
    with Client.connect(fake.path) as client:
        client.call("ping")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        peers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        full = max(int(fd) for fd in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (full, hard))
        fill: list[int] = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    fill.append(os.open("/dev/null", os.O_RDONLY))
            for peer in peers:
                peer.settimeout(10)
                peer.connect(fake.path)
                assert b"descriptors" in read_to_end(peer)
                client.call("ping")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fill:
                os.close(fd)
            for peer in peers:
                peer.close()
    assert [text for _, text, _ in fake.logged] == ["accept a control connection: Too many open files; it is refused"]
    with Client.connect(fake.path) as client:
        client.call("ping")


def test_an_idle_daemon_has_no_timer(fake: Fake) -> None:
    def timers() -> int:
        return fake.do(lambda: sum(timer.call is not None for timer in fake.loop._timers))

    assert timers() == 0
    with Client.connect(fake.path) as client:
        client.call("ping")
        assert timers() == 1
    wait_for(lambda: links(fake) == 0)
    assert timers() == 0


def test_a_silent_daemon_is_given_up(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    over = Event()
    with Client.connect(fake.path) as client:
        client.call("reload", {"wait": False})
        monkeypatch.setattr("srvd.client.connection.PATIENCE", 0.1)
        fake.post(partial(over.wait, 30))  # stuck
        with pytest.raises(NoDaemon, match="does not answer"):
            client.call("op.wait", {"id": 1})
        over.set()


def test_a_long_silence_of_a_living_daemon_is_waited_for(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srvd.client.connection.PATIENCE", 1.0)
    with Client.connect(fake.path) as client:
        client.call("reload", {"wait": False})
        fake.do(lambda: fake.loop.call_later(2.5, fake.backend.finish, 1))
        assert client.call("op.wait", {"id": 1})["operation"]["state"] == "done"


@pytest.mark.slow
def test_attacks_leave_a_daemon_no_larger(tmp_path: Path) -> None:
    """A process of its own: the kernel knows how large it ever was."""
    path = str(tmp_path / "d.sock")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.fake_daemon", path, "d"], stdout=subprocess.PIPE, text=True
    ) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
        before = _largest_size(daemon.pid)
        _attack(path)
        with Client.connect(path) as client:
            assert client.call("ping")["pid"] == daemon.pid
        assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < 30
        grown = _largest_size(daemon.pid) - before
        daemon.terminate()
    assert daemon.returncode == 0
    assert grown < 16 << 20


def _largest_size(pid: int) -> int:
    """Bytes that were resident at most. Not ru_maxrss: that begins with the size of the process that forked."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))


def _attack(path: str) -> None:
    deepest: Any = {"a": [{}] * 1_024}
    worst = packed({"type": "req", "id": 1, "method": "scale", "args": {"pool": deepest, "x": [deepest] * 20}})
    for _ in range(12):
        with contextlib.ExitStack() as stack:
            for _ in range(15):
                sock = stack.enter_context(connected(path))
                sock.setblocking(False)
                for data in (worst[: 64 << 10], framed(b"\x91" * (1 << 20)), PING * 2_000):
                    with contextlib.suppress(OSError):
                        sock.send(data)
            with contextlib.suppress(SrvdError), Client.connect(path) as client:
                client.call("status")
