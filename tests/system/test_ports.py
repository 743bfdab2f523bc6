"""Ports at a stop: new clients are refused at once, who waits is answered, and the address is free for the next one.

With real clients, and with nginx (Debian's nginx-light) in front of two daemons.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection

import psutil
import pytest

from tests.conftest import Starter
from tests.support.daemon import KILL, Srvd, free_port, is_alive, toml
from tests.support.nginx import needs_nginx, nginx
from tests.support.waiting import stays, wait_for

pytestmark = pytest.mark.system

PROMPT = 10.0
"""Seconds within which a client is refused."""

Connect = Callable[[], socket.socket]


def _tcp(address: tuple[str, int]) -> Connect:
    return lambda: socket.create_connection(address, timeout=20)


def _unix(address: str) -> Connect:
    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        try:
            client.connect(address)
        except OSError:
            client.close()
            raise
        return client

    return connect


def _outcome(connect: Connect) -> str:
    """What becomes of a client that comes now."""
    began = time.monotonic()
    try:
        connect().close()
    except (ConnectionRefusedError, FileNotFoundError):
        return "refused" if time.monotonic() - began < PROMPT else "refused late"
    except TimeoutError:
        return "hung"
    return "connected"


def _answer(client: socket.socket) -> str:
    answer = bytearray()
    with client:
        while chunk := client.recv(65536):
            answer += chunk
    return answer.decode()


def _ask(connect: Connect, path: str) -> socket.socket:
    client = connect()
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return client


def _connections(srvd: Srvd) -> int:
    """That its workers have accepted."""
    return sum(worker["connections"] for worker in srvd.call("workers")["workers"])


@pytest.mark.parametrize("kind", ["tcp", "tcp of both families", "unix", "abstract"])
def test_while_a_stop_drains_new_clients_are_refused_and_those_who_wait_are_answered(
    starter: Starter, kind: str
) -> None:
    """The only thread is in a request when the stop comes, and the others are in the backlog of the kernel."""
    name = f"@srvd-test-{os.getpid()}"
    binds = {"tcp": "127.0.0.1:0", "tcp of both families": "[::]:0", "abstract": f"unix:{name}"}
    folder = starter.folder / "srvd0"
    srvd = starter.new(config=toml("workers = 1\nthreads = 1", bind=binds.get(kind, f"unix:{folder}/w.sock")))
    srvd.start()
    if kind.startswith("tcp"):
        connect = _tcp(("127.0.0.1" if kind == "tcp" else "::1", srvd.address()[1]))
    else:
        connect = _unix(f"\0{name[1:]}" if kind == "abstract" else f"{folder}/w.sock")
    slow = _ask(connect, "/until/over")
    wait_for(lambda: _connections(srvd) == 1)
    waiting = [_ask(connect, "/") for _ in range(8)]
    srvd.signal(signal.SIGTERM)
    srvd.wait_logged("pool web leaves")
    wait_for(lambda: _outcome(connect) == "refused", PROMPT)
    assert stays(lambda: _outcome(connect) == "refused", 0.5, every=0.05)
    assert is_alive(psutil.Process(srvd.pid))
    (srvd.folder / "over").touch()
    for client in (slow, *waiting):
        assert "200 OK" in _answer(client)
    assert srvd.wait() == 0


def test_a_port_is_free_for_another_while_the_last_request_is_finished(starter: Starter) -> None:
    srvd = starter(config=toml("workers = 2"))
    slow = _ask(_tcp(srvd.address()), "/until/over")
    wait_for(lambda: _connections(srvd) == 1)
    srvd.signal(signal.SIGTERM)

    def bind() -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(srvd._addresses["web"])
                probe.listen()
            except OSError:
                return False
            return True

    wait_for(bind)
    assert is_alive(psutil.Process(srvd.pid))
    (srvd.folder / "over").touch()
    assert "200 OK" in _answer(slow)
    assert srvd.wait() == 0


def test_a_stop_under_load_loses_nobody_who_was_let_in(starter: Starter) -> None:
    """Clients of one request each, as many as the machine gives, over the moment of the stop: each is refused or
    answered.
    """
    srvd = starter(config=toml("workers = 2\nthreads = 2"))
    address = srvd.address()
    over = threading.Event()
    outcomes: list[str] = []

    def client() -> None:
        refused = 0
        while refused < 20 and not over.is_set():
            try:
                connection = _ask(_tcp(address), "/sleep/0.01")
            except ConnectionRefusedError:
                outcomes.append("refused")
                refused += 1
                time.sleep(0.01)
                continue
            try:
                outcomes.append("answered" if "200 OK" in _answer(connection) else "cut")
            except OSError as exc:
                outcomes.append(repr(exc))

    with ThreadPoolExecutor(24) as pool:
        clients = [pool.submit(client) for _ in range(24)]
        try:
            wait_for(lambda: outcomes.count("answered") > 200, 30)
            srvd.signal(signal.SIGTERM)
            assert srvd.wait() == 0
            for one in clients:
                one.result(timeout=60)
        finally:
            over.set()
    assert set(outcomes) == {"answered", "refused"}


def test_a_family_whose_stop_was_ordered_waits_for_no_daemon_after_it(starter: Starter) -> None:
    """The daemon is killed in mid-stop, as supervisord does when its patience ends."""
    srvd = starter(config=toml("workers = 2"))
    connect = _tcp(srvd.address())
    slow = _ask(connect, "/until/over")
    wait_for(lambda: _connections(srvd) == 1)
    srvd.signal(signal.SIGTERM)
    srvd.wait_logged("pool web leaves")
    wait_for(lambda: _outcome(connect) == "refused", PROMPT)
    left = srvd.die()
    assert _outcome(connect) == "refused"
    (srvd.folder / "over").touch()
    assert "200 OK" in _answer(slow)
    wait_for(lambda: not any(is_alive(one) for one in left), 30)  # orphan_timeout is a minute
    for path in srvd.folder.glob("control.sock*"):
        path.unlink()


def test_a_start_after_a_kill_in_mid_stop_serves_and_the_request_is_answered(starter: Starter) -> None:
    port = free_port()
    srvd = starter(config=toml("workers = 1\nthreads = 1", bind=f"127.0.0.1:{port}"))
    connect = _tcp(("127.0.0.1", port))
    slow = _ask(connect, "/sleep/5")
    wait_for(lambda: _connections(srvd) == 1)
    waiting = _ask(connect, "/")
    srvd.signal(signal.SIGTERM)
    srvd.wait_logged("pool web leaves")
    srvd.die(KILL)
    srvd.start()
    assert srvd.get("/").startswith("one ")
    assert "200 OK" in _answer(slow)
    if os.geteuid() != 0:
        waiting.close()
        pytest.skip("takes CAP_NET_RAW: else the next daemon has no use for the listener and its queue")
    assert "200 OK" in _answer(waiting)


def test_a_start_waits_a_little_for_a_port_that_is_about_to_be_free(starter: Starter) -> None:
    with socket.socket() as former:
        former.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        former.bind(("127.0.0.1", 0))
        former.listen()
        srvd = starter.new(config=toml(bind=f"127.0.0.1:{former.getsockname()[1]}"))
        srvd.start(ready=False)
        srvd.wait_logged("is taken; trying for 5 s")
    wait_for(srvd.is_ready)
    assert srvd.get("/").startswith("one ")


def test_whoever_has_the_port_is_named(starter: Starter) -> None:
    first = starter(config=toml(bind=f"127.0.0.1:{free_port()}"))
    second = starter.new(config=toml(bind=f"127.0.0.1:{first.address()[1]}"))
    done = second.run()
    assert done.returncode == 71
    assert f"pid {first.pid} (srvd: daemon srvd, user " in done.stderr
    assert "stop that daemon, or bind another port" in done.stderr
    assert "kill -HUP" in done.stderr


PROXY = """upstream both { server 127.0.0.1:FIRST; server 127.0.0.1:SECOND; }
  server {
    listen 127.0.0.1:PORT;
    location / { proxy_pass http://both; }
  }"""


@needs_nginx
def test_nginx_goes_on_with_its_other_upstream_at_once(starter: Starter) -> None:
    """One of two daemons drains for seconds, with all its threads busy; no request by nginx notices it."""
    daemons = [starter(config=toml("workers = 1\nthreads = 1")) for _ in range(2)]
    first, second = (srvd.address()[1] for srvd in daemons)

    def get() -> float:
        began = time.monotonic()
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        response.read()
        connection.close()
        return time.monotonic() - began

    http = PROXY.replace("FIRST", str(first)).replace("SECOND", str(second))
    with nginx(starter.folder, http) as port, ThreadPoolExecutor() as pool:
        for _ in range(10):
            get()
        slow: Future[str] = pool.submit(daemons[0].get, "/until/over")
        wait_for(lambda: _connections(daemons[0]) == 1)
        daemons[0].signal(signal.SIGTERM)
        daemons[0].wait_logged("pool web leaves")
        took = [get() for _ in range(40)]
        assert daemons[0].process is not None
        assert daemons[0].process.poll() is None
        (daemons[0].folder / "over").touch()
        assert max(took) < 10  # before: the request hung until the drain was over
        assert slow.result().startswith("one web/1#1")
        assert daemons[0].wait() == 0
