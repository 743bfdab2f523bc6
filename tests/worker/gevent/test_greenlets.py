"""Claims about `engine = "gevent"`: calls in greenlets, with a real daemon, real sockets and a real hub."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import Starter
from tests.support.daemon import Srvd, toml
from tests.support.waiting import wait_for

pytest.importorskip("gevent")
pytestmark = pytest.mark.system

CODE = """
import contextvars, gc, os, threading, time
from greenlet import greenlet

SET, WAITING, VARIABLE = threading.Event(), [], contextvars.ContextVar("variable", default="unset")

def app(environ, start_response):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    body = b"here"
    if path == "/wait":
        VARIABLE.set(query)
        WAITING.append(query)
        SET.wait()
        body = VARIABLE.get().encode()
    elif path == "/set":
        SET.set()
    elif path == "/reset":
        SET.clear()
        WAITING.clear()
    elif path == "/waiting":
        body = str(len(WAITING)).encode()
    elif path == "/hang":
        time.sleep(600)
    elif path == "/variable":
        body = VARIABLE.get().encode()
    elif path == "/greenlets":
        body = str(sum(isinstance(one, greenlet) for one in gc.get_objects())).encode()
    elif path == "/length":
        WAITING.append(path)
        body = str(len(environ["wsgi.input"].read())).encode()
    elif path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/endless":
        start_response("200 OK", [])
        return (b"x" * 65536 for _ in range(10_000))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.fixture(scope="module")
def srvd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Srvd]:
    folder: Path = tmp_path_factory.mktemp("greenlets")
    pool = 'engine = "gevent"\nworkers = 1\nstream_bodies = true\nrequest_timeout = "3s"'
    started = Srvd(folder, config=toml(pool))
    started.deploy(CODE)
    try:
        yield started.start()
    finally:
        started.stop()


@pytest.fixture(autouse=True)
def _anew(srvd: Srvd) -> None:
    """Each test begins with an application that has counted nothing."""
    assert srvd.get("/reset") == "here"


def _waiting(srvd: Srvd, count: int) -> None:
    wait_for(lambda: int(srvd.get("/waiting")) >= count)


def test_calls_that_wait_wait_together_and_have_contexts_of_their_own(srvd: Srvd) -> None:
    count = 30
    with ThreadPoolExecutor(count) as clients:
        answers = [clients.submit(srvd.get, f"/wait?{number}") for number in range(count)]
        _waiting(srvd, count)
        assert srvd.get("/variable") == "unset"
        srvd.get("/set")
        assert [answer.result() for answer in answers] == [str(number) for number in range(count)]
    assert srvd.get("/variable") == "unset"


def test_a_call_over_request_timeout_is_answered_with_504_and_others_live(srvd: Srvd) -> None:
    pid = srvd.get("/pid")
    connection = srvd.connect()
    try:
        connection.request("GET", "/hang")
        response = connection.getresponse()
        assert response.status == 504
        response.read()
        connection.request("GET", "/pid")  # the connection goes on, too
        assert connection.getresponse().read().decode() == pid
    finally:
        connection.close()
    srvd.wait_logged("ended at request_timeout")


def test_idle_connections_cost_no_greenlet(srvd: Srvd) -> None:
    before = int(srvd.get("/greenlets"))
    idle = [srvd.connect() for _ in range(200)]
    try:
        for connection in idle:
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"here"
        assert int(srvd.get("/greenlets")) <= before + 1
    finally:
        for connection in idle:
            connection.close()


def test_a_slow_upload_waits_as_a_greenlet(srvd: Srvd) -> None:
    with socket.create_connection(srvd.address()) as slow:
        slow.sendall(b"POST /length HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\nConnection: close\r\n\r\nabc")
        _waiting(srvd, 1)
        assert srvd.get() == "here"
        slow.sendall(b"def")
        response = http.client.HTTPResponse(slow)
        response.begin()
        assert response.read() == b"6"
        response.close()


def test_a_client_that_does_not_read_holds_up_no_other(srvd: Srvd) -> None:
    with socket.create_connection(srvd.address()) as slow:
        slow.sendall(b"GET /endless HTTP/1.1\r\nHost: test\r\n\r\n")
        slow.recv(1)
        for _ in range(10):
            assert srvd.get() == "here"


def test_a_reload_under_load_loses_nothing(starter: Starter) -> None:
    srvd = starter(config=toml('engine = "gevent"\nhealth = "/"'))
    with srvd.under_load() as load:
        for _ in range(3):
            done = srvd.ctl("reload")
            assert done.returncode == 0, done.stderr
    assert load.answered
    assert not load.failed
    assert srvd.stop() == 0


@pytest.mark.parametrize("preload", ["on", "off"])
def test_the_process_is_patched_before_hooks_and_application(starter: Starter, preload: str) -> None:
    look = "import threading\nfrom gevent import monkey\nassert monkey.is_module_patched('threading')\n"
    srvd = starter.new(config=toml(f'engine = "gevent"\npreload = "{preload}"\nhooks = "early"'), code=look + CODE)
    srvd.deploy(look, "early")
    srvd.start()
    assert srvd.get() == "here"
    assert srvd.stop() == 0


def test_an_asgi_application_is_refused(starter: Starter) -> None:
    code = "async def app(scope, receive, send): pass\n"
    done = starter.new(config=toml('engine = "gevent"'), code=code).run()
    assert done.returncode == 1
    assert "it is an ASGI application" in done.stderr


BLOCKED = """
import os, subprocess

def app(environ, start_response):
    while environ["PATH_INFO"] == "/block":
        pass
    printed = subprocess.run(["echo", "child"], capture_output=True, text=True).stdout.strip()
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    start_response("200 OK", [])
    return [f"{printed} {os.waitstatus_to_exitcode(status)}".encode()]
"""


def test_a_call_that_holds_up_the_hub_is_found_and_its_worker_is_replaced(starter: Starter) -> None:
    srvd = starter(config=toml('workers = 1\nengine = "gevent"\nrequest_timeout = "2s"'), code=BLOCKED)
    with ThreadPoolExecutor() as pool:
        pool.submit(srvd.get, "/block")
        wait_for(lambda: "cause:     request_timeout" in srvd.ctl("why", "web/1#1").stdout, within=60)
        wait_for(srvd.is_ready, within=60)
        assert srvd.get("/") == "child 7"  # the application's children are its own
