"""Connections in every state at a reload and at a stop: nobody who was let in loses what was begun."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conftest import Starter
from tests.support import apps
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

pytestmark = pytest.mark.system

LARGE = 8 << 20

BODIES = (
    apps.GOOD.format(release="one")
    + f"""
import os, time
plain = app
def app(environ, start_response):
    if environ["PATH_INFO"] == "/held":
        while not os.path.exists("go"):
            time.sleep(0.02)
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Length", "{LARGE}")])
        return (b"x" * 65536 for _ in range({LARGE} // 65536))
    if environ["PATH_INFO"] == "/echo":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    return plain(environ, start_response)
"""
)


@pytest.fixture
def bodies(starter: Starter) -> Srvd:
    return starter(config=toml('workers = 1\nbake = 0\nrollback_window = 0\nkeepalive_timeout = "2s"'), code=BODIES)


def _connect(srvd: Srvd, data: bytes = b"") -> socket.socket:
    """A connection that the only worker has accepted, and has read `data` from."""
    before = _connections(srvd)
    client = socket.create_connection(srvd.address(), timeout=30)
    client.sendall(data)
    wait_for(lambda: _connections(srvd) > before)
    return client


def _connections(srvd: Srvd) -> int:
    return sum(worker["connections"] for worker in srvd.call("workers")["workers"])


def _rest(client: socket.socket) -> bytes:
    answer = bytearray()
    with client:
        while chunk := client.recv(1 << 20):
            answer += chunk
    return bytes(answer)


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_connections_in_every_state_outlive_a_reload(bodies: Srvd) -> None:
    silent = _connect(bodies)
    half_a_head = _connect(bodies, b"GET / HTTP/1.1\r\nHo")
    half_a_body = _connect(bodies, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf ")
    slow_reader = _connect(bodies, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    bodies.good("two")
    assert bodies.ctl("reload").returncode == 0
    assert bodies.get().startswith("two ")
    assert bodies.pool()["draining"] == 1
    silent.sendall(GET)
    half_a_head.sendall(b"st: a\r\n\r\n")
    half_a_body.sendall(b"whole")
    for client in (silent, half_a_head):
        answer = _rest(client)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"Connection: close" in answer
        assert b"one web/1#1" in answer
    assert _rest(half_a_body).endswith(b"\r\n\r\nhalf whole")
    assert len(_rest(slow_reader).partition(b"\r\n\r\n")[2]) == LARGE
    wait_for(lambda: bodies.pool()["draining"] == 0)


def test_pipelined_requests_are_answered_and_the_connection_once_more(bodies: Srvd) -> None:
    """Three came in one piece before the reload, a fourth after it; what follows a close may be asked again (RFC 9112,
    section 9.3.2).
    """
    client = _connect(bodies, b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n" + GET + GET)
    bodies.good("two")
    assert bodies.ctl("reload").returncode == 0
    client.sendall(GET)
    (bodies.folder / "go").touch()
    answer = _rest(client)
    assert 1 <= answer.count(b"HTTP/1.1 200 OK") == answer.count(b"one web/1#1 ") <= 4
    assert b"Connection: close" in answer.rpartition(b"HTTP/1.1 200 OK")[2]
    assert answer.count(b"Connection: close") == 1


def test_connections_in_every_state_at_a_stop(bodies: Srvd) -> None:
    """Requests that have begun are finished; who says nothing is let go within seconds."""
    silent = _connect(bodies)
    half_a_body = _connect(bodies, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf ")
    slow_reader = _connect(bodies, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
    with ThreadPoolExecutor() as pool:
        stop = pool.submit(bodies.ctl, "stop")
        bodies.wait_logged("asked by")
        wait_for(lambda: "pool web leaves" in bodies.logged())
        half_a_body.sendall(b"whole")
        assert _rest(half_a_body).endswith(b"\r\n\r\nhalf whole")
        assert len(_rest(slow_reader).partition(b"\r\n\r\n")[2]) == LARGE
        assert _rest(silent) == b""
        assert stop.result().returncode == 0
    assert bodies.wait() == 0


def test_a_client_that_never_finishes_is_cut_off_at_drain_timeout(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\ndrain_timeout = "1s"\nbake = 0\nrollback_window = 0'))
    stuck = _connect(srvd, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf ")
    assert srvd.ctl("reload").returncode == 0
    wait_for(lambda: srvd.pool()["draining"] == 0)
    stuck.close()
    assert srvd.get().startswith("one web/2#")


def test_requests_that_wait_in_the_backlog_are_answered_at_a_stop(starter: Starter) -> None:
    """More clients than workers: those that no worker has accepted yet are served before it ends."""
    srvd = starter("--workers", "1")
    clients = [socket.create_connection(srvd.address(), timeout=30) for _ in range(20)]
    for client in clients:
        client.sendall(b"GET /sleep/0.05 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    srvd.signal(15)
    answers = [_rest(client) for client in clients]
    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 20
    assert srvd.wait() == 0


def test_scaling_to_nobody_and_removing_a_pool_lose_nothing(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    with ThreadPoolExecutor() as pool:
        slow = [pool.submit(srvd.get, "/until/over") for _ in range(2)]
        wait_for(lambda: all(worker["busy"] for worker in srvd.serving()))
        scaled = pool.submit(srvd.ctl, "scale", "0")
        wait_for(lambda: not srvd.serving())
        (srvd.folder / "over").touch()
        assert scaled.result().returncode == 0
        assert [future.result().split()[0] for future in slow] == ["one", "one"]


def test_who_waits_for_the_last_to_leave_is_told_for_whom(starter: Starter) -> None:
    srvd = starter("--workers", "2")
    told: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(srvd.get, "/until/over")
        (busy,) = wait_for(lambda: [one["id"] for one in srvd.call("workers")["workers"] if one["busy"]])

        def hear(progress: Mapping[str, Any]) -> None:
            told.append(progress["message"])
            if f"waits for {busy}" in told[-1]:
                (srvd.folder / "over").touch()

        with srvd.client() as client:
            client.call("stop", on_progress=hear)
        assert answer.result(30)
    assert srvd.wait() == 0
    assert f"waits for {busy} in GET /until/over" in told


def test_a_port_that_a_stop_gives_up_is_not_taken_for_one_that_a_process_has_shut_down(starter: Starter) -> None:
    """Clients that came shortly before make the daemon look at its listeners once more, while a request is answered."""
    srvd = starter(config=toml("workers = 2"))
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(srvd.get, "/sleep/4")
        wait_for(lambda: any(worker["busy"] for worker in srvd.serving()))
        srvd.get("/")
        assert srvd.ctl("stop").returncode == 0
        assert answer.result().startswith("one ")
    assert srvd.wait() == 0
    assert "shut it down" not in srvd.logged()
    assert "ERROR" not in srvd.logged()
